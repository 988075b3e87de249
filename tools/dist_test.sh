#!/usr/bin/env bash
# Evaluate with one process per GPU (per given process on a machine without GPUs).
set -e
TOOLS=$(dirname "$0")
usage() {
    cat >&2 <<END
error: $1
usage: [NNODES=1] [NODE_RANK=0] [MASTER_ADDR=127.0.0.1] [PORT=29500] \\
    tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
PROCESSES is one per GPU of this machine. Two runs on one machine need two PORTs; several machines: docs/commands.md.
END
    exit 2
}
[ $# -ge 3 ] || usage "CONFIG, CHECKPOINT and PROCESSES are needed, got $# arguments"
[[ "$3" =~ ^[1-9][0-9]*$ ]] || usage "PROCESSES (the third argument) must be a number, got '$3'"
# a name without a dot or a slash may be that of a shipped config
[[ "$1" == *::* || -f "$1" || "$1" != *[./]* ]] || usage "CONFIG (the first argument): there is no file '$1'"
PYTHONPATH="$TOOLS/..:$PYTHONPATH" \
exec "${PYTHON:-python}" -m nfnet_mm.commands.launch \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$3" \
    "$TOOLS/test.py" "$1" "$2" --launcher pytorch "${@:4}"
