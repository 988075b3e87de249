#!/usr/bin/env bash
# Train with one process per GPU (per given process on a machine without GPUs).
set -e
TOOLS=$(dirname "$0")
usage() {
    cat >&2 <<END
error: $1
usage: [NNODES=1] [NODE_RANK=0] [MASTER_ADDR=127.0.0.1] [PORT=29500] [MAX_RESTARTS=0] \\
    tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
PROCESSES is one per GPU of this machine. Two runs on one machine need two PORTs; several machines: docs/commands.md.
END
    exit 2
}
[ $# -ge 2 ] || usage "CONFIG and PROCESSES are needed, got $# arguments"
[[ "$2" =~ ^[1-9][0-9]*$ ]] || usage "PROCESSES (the second argument) must be a number, got '$2'"
[[ "${MAX_RESTARTS:-0}" =~ ^[0-9]+$ ]] || usage "MAX_RESTARTS must be a number, got '$MAX_RESTARTS'"
[[ "${MAX_RESTARTS:-0}" == 0 || " ${*:3}" == *" --resume"* ]] || \
    usage "MAX_RESTARTS=$MAX_RESTARTS starts a run again that fails, each time anew: add --resume auto"
# a name without a dot or a slash may be that of a shipped config
[[ "$1" == *::* || -f "$1" || "$1" != *[./]* ]] || usage "CONFIG (the first argument): there is no file '$1'"
PYTHONPATH="$TOOLS/..:$PYTHONPATH" \
exec "${PYTHON:-python}" -m nfnet_mm.commands.launch \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$2" ${MAX_RESTARTS:+--max-restarts="$MAX_RESTARTS"} \
    "$TOOLS/train.py" "$1" --launcher pytorch "${@:3}"
