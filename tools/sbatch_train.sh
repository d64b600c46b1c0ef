#!/usr/bin/env bash
# Queue a training on a Slurm cluster; it resumes automatically after preemption, a node failure or the time limit.
# Usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [TIME=24:00:00] [SEEDS="0 1 2"] [SBATCH_ARGS=...] [SRUN_ARGS=...] \
#        tools/sbatch_train.sh PARTITION JOB CONFIG WORK_DIR [arguments of tools/train.py]
# TIME is the time limit of one job. WARN_SECONDS (300) before that limit, and on preemption, the training saves and
# stops; the job is requeued and resumes from the newest complete checkpoint until the training is complete.
# A sweep is a job array: CONFIG may be several ("a.py b.py"), and SEEDS may list seeds. Each run then works in
# WORK_DIR/CONFIG_NAME or WORK_DIR/CONFIG_NAME/seed_S. The log of each run is slurm-JOBID.log in WORK_DIR.
# With --dry-run nothing is queued: each config is checked on this machine, without data, GPU or Slurm.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB CONFIG WORK_DIR [arguments of tools/train.py]" >&2
    exit 2
fi
dry_run=
for argument in "${@:5}"; do
    if [ "$argument" = --dry-run ]; then dry_run=1; fi
done
if [ -z "$dry_run" ] && ! command -v sbatch >/dev/null; then
    echo "error: sbatch not found: run this on a machine of a Slurm cluster, or use tools/dist_train.sh" >&2
    exit 2
fi
partition=$1 job=$2 work_dir=$4
read -ra configs <<<"$3"
read -ra seeds <<<"${SEEDS:-}"
shift 4
for config in "${configs[@]}"; do
    if [ ! -f "$config" ]; then
        "${PYTHON:-python}" -m mogacore.locations "$config" >/dev/null # resolves a short name, or reports an error
    fi
done
for seed in ${seeds[@]+"${seeds[@]}"}; do
    if [[ ! $seed =~ ^[0-9]+$ ]]; then
        echo "error: SEEDS must be non-negative integers, not '$seed'" >&2
        exit 2
    fi
done
tools=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=slurm_placement.sh
source "$tools/slurm_placement.sh"
runs=$((${#configs[@]} * (${#seeds[@]} > 0 ? ${#seeds[@]} : 1)))
options=(--output="$work_dir/slurm-%j.log")
if [ "$runs" -gt 1 ]; then
    options=(--array="0-$((runs - 1))" --output="$work_dir/slurm-%A_%a.log")
fi
if [ -n "$dry_run" ]; then
    for config in "${configs[@]}"; do
        "${PYTHON:-python}" "$tools/train.py" "$config" --work-dir "$work_dir" --resume "$@"
    done
    echo "would queue $runs run(s) of $gpus processes in partition $partition, $gpus_per_node GPUs per node"
    exit 0
fi
mkdir -p "$work_dir"
# sbatch_job.sh receives one flat list, preceded by the lengths of its parts. SBATCH_ARGS is split into words on purpose.
# shellcheck disable=SC2086
exec sbatch -p "$partition" --job-name="$job" "${placement[@]}" --ntasks="$gpus" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --time="${TIME:-24:00:00}" --signal="USR1@${WARN_SECONDS:-300}" \
    --requeue --open-mode=append "${options[@]}" ${SBATCH_ARGS:-} \
    "$tools/sbatch_job.sh" "$tools" "$work_dir" "${#configs[@]}" "${#seeds[@]}" \
    "${configs[@]}" ${seeds[@]+"${seeds[@]}"} "$@"
