#!/usr/bin/env bash
# Train on a slurm cluster.
set -e
TOOLS=$(dirname "$0")
usage() {
    cat >&2 <<END
error: $1
usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \\
    tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
END
    exit 2
}
[ $# -ge 4 ] || usage "PARTITION, JOB_NAME, CONFIG and WORK_DIR are needed, got $# arguments"
[[ "$3" == *::* || -f "$3" ]] || usage "CONFIG (the third argument): there is no file '$3'"
[[ "$4" != -* ]] || usage "WORK_DIR (the fourth argument) must be a folder, got '$4'"
GPUS=${GPUS:-8}
[[ "$GPUS" =~ ^[1-9][0-9]*$ ]] || usage "GPUS must be a number, got '$GPUS'"
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
[[ "$GPUS_PER_NODE" =~ ^[1-9][0-9]*$ ]] || usage "GPUS_PER_NODE must be a number, got '$GPUS_PER_NODE'"
command -v srun >/dev/null || usage 'there is no srun on this machine: on one without Slurm use tools/dist_train.sh'
# SRUN_ARGS holds several words
# shellcheck disable=SC2086
PYTHONPATH="$TOOLS/..:$PYTHONPATH" \
exec srun -p "$1" --job-name="$2" --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 $SRUN_ARGS \
    "${PYTHON:-python}" -u "$TOOLS/train.py" "$3" --work-dir="$4" --launcher=slurm "${@:5}"
