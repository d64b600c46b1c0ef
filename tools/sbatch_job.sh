#!/usr/bin/env bash
# Run one queued training inside its job; tools/sbatch_train.sh submits it.
# Usage: sbatch_job.sh TOOLS WORK_DIR NUM_CONFIGS NUM_SEEDS CONFIG... SEED... [arguments of tools/train.py]
set -euo pipefail
tools=$1 work_dir=$2 num_configs=$3 num_seeds=$4
shift 4
configs=("${@:1:num_configs}")
seeds=("${@:num_configs+1:num_seeds}")
shift $((num_configs + num_seeds))
index=${SLURM_ARRAY_TASK_ID:-0}
config=${configs[index / (num_seeds > 0 ? num_seeds : 1)]}
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    work_dir=$work_dir/$(basename "$config" .py)
fi
seed_option=()
if [ "$num_seeds" -gt 0 ]; then
    seed=${seeds[index % num_seeds]}
    work_dir=$work_dir/seed_$seed
    seed_option=(--seed "$seed")
fi
mkdir -p "$work_dir"
started=$(mktemp)
trap 'rm -f "$started"' EXIT
echo "$(date '+%F %T') job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): $config in $work_dir"
status=0
"$tools/slurm_train.sh" "$SLURM_JOB_PARTITION" "$SLURM_JOB_NAME" "$config" "$work_dir" --resume \
    ${seed_option[@]+"${seed_option[@]}"} "$@" || status=$?
# A training stopped by a signal leaves interrupted.pth and returns 75, unless srun killed its last processes.
if [ "$status" != 0 ] && [ "$work_dir/interrupted.pth" -nt "$started" ]; then
    echo "$(date '+%F %T') job $SLURM_JOB_ID received a stop signal, saved, and is requeued"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
