#!/usr/bin/env bash
# Queue a training on a Slurm cluster; it resumes by itself after preemption, a lost node or the time limit.
# Usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [TIME=24:00:00] [SEEDS="0 1 2"] [SBATCH_ARGS=...] [SRUN_ARGS=...] \
#        tools/sbatch_train.sh PARTITION JOB CONFIG WORK_DIR [arguments of tools/train.py]
# TIME is the time limit of one job. WARN_SECONDS (300) before it, and on preemption, the training saves and stops; the
# job is queued again and resumes from the newest complete checkpoint, until the training is done.
# A sweep is a job array: CONFIG may be several ("a.py b.py"), and SEEDS may list seeds. Each run then works in
# WORK_DIR/CONFIG_NAME or WORK_DIR/CONFIG_NAME/seed_S. The log of each run is slurm-JOBID.log in WORK_DIR.
# With --dry-run among the arguments nothing is queued: each config is checked here, without data, GPU or Slurm.
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
        "${PYTHON:-python}" -m mogacore.locations "$config" >/dev/null # a short name, or an error
    fi
done
for seed in ${seeds[@]+"${seeds[@]}"}; do
    if [[ ! $seed =~ ^[0-9]+$ ]]; then
        echo "error: SEEDS must be whole numbers, not '$seed'" >&2
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
    echo "would queue $runs run(s) of $gpus processes in partition $partition, $gpus_per_node GPUs a node"
    exit 0
fi
mkdir -p "$work_dir"
# sbatch_job.sh gets one list: the lengths of its parts come first. SBATCH_ARGS is a list of words.
# shellcheck disable=SC2086
exec sbatch -p "$partition" --job-name="$job" "${placement[@]}" --ntasks="$gpus" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --time="${TIME:-24:00:00}" --signal="USR1@${WARN_SECONDS:-300}" \
    --requeue --open-mode=append "${options[@]}" ${SBATCH_ARGS:-} \
    "$tools/sbatch_job.sh" "$tools" "$work_dir" "${#configs[@]}" "${#seeds[@]}" \
    "${configs[@]}" ${seeds[@]+"${seeds[@]}"} "$@"
