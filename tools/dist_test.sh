#!/usr/bin/env bash
# Evaluate with one process per GPU (per given process on a machine without GPUs).
# tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of test.py]; several nodes: see dist_train.sh
set -e
TOOLS=$(dirname "$0")
PYTHONPATH="$TOOLS/..:$PYTHONPATH" \
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$3" \
    "$TOOLS/test.py" "$1" "$2" --launcher pytorch "${@:4}"
