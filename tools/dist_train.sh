#!/usr/bin/env bash
# Train with one process per GPU (per given process on a machine without GPUs).
# tools/dist_train.sh CONFIG PROCESSES [options of train.py]; several nodes: set NNODES, NODE_RANK, MASTER_ADDR, PORT
set -e
TOOLS=$(dirname "$0")
PYTHONPATH="$TOOLS/..:$PYTHONPATH" \
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$2" \
    "$TOOLS/train.py" "$1" --launcher pytorch "${@:3}"
