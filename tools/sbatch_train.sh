#!/usr/bin/env bash
# Queue a training on a Slurm cluster; it resumes automatically after preemption, a node failure or the time limit.
# Usage: tools/sbatch_train.sh PARTITION JOB CONFIG WORK_DIR [arguments of tools/train.py]
# TIME (24:00:00) is the time limit of one job. WARN_SECONDS (300) before that limit, and on preemption, the training
# saves and stops; the job is requeued and resumes from the newest complete checkpoint until the training is complete.
# A sweep is a job array: CONFIG may be several ("a.py b.py"), and SEEDS may list seeds ("0 1 2"). Each run then works in
# WORK_DIR/CONFIG_NAME or WORK_DIR/CONFIG_NAME/seed_S. The log of each run is slurm-JOBID.log in WORK_DIR. SBATCH_ARGS
# are further arguments of sbatch, split at spaces.
# With --dry-run nothing is queued: each config is checked on this machine, without data, GPU or Slurm.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launch_checks.sh
source "$(dirname "$0")/launch_checks.sh"
check_usage slurm 4 "$@"
dry_run=
for argument in "${@:5}"; do
    if [ "$argument" = --dry-run ]; then dry_run=1; fi
done
partition=$1 job=$2 work_dir=$4
read -ra configs <<<"$3"
read -ra seeds <<<"${SEEDS:-}"
shift 4
[ ${#configs[@]} -gt 0 ] || fail "CONFIG is empty: give one or more configs"
for config in "${configs[@]}"; do
    check_config "$config"
done
for seed in ${seeds[@]+"${seeds[@]}"}; do
    check_number 'each of SEEDS' "$seed" 0
done
check_number WARN_SECONDS "${WARN_SECONDS:-300}"
slurm_settings
if [ -z "$dry_run" ]; then
    command -v sbatch >/dev/null ||
        fail "sbatch not found: run this on a machine of a Slurm cluster, or use tools/dist_train.sh"
fi
tools=$(cd "$(dirname "$0")" && pwd)
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
exec sbatch -p "$partition" --job-name="$job" "${placement[@]}" --time="${TIME:-24:00:00}" \
    --signal="USR1@${WARN_SECONDS:-300}" --requeue --open-mode=append "${options[@]}" ${SBATCH_ARGS:-} \
    "$tools/sbatch_job.sh" "$tools" "$work_dir" "${#configs[@]}" "${#seeds[@]}" \
    "${configs[@]}" ${seeds[@]+"${seeds[@]}"} "$@"
