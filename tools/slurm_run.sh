#!/usr/bin/env bash
# Start SCRIPT through srun, one task per GPU; slurm_train.sh and slurm_test.sh call it.
# Usage: tools/slurm_run.sh PARTITION JOB SCRIPT [arguments of SCRIPT]
# Variables: GPUS (8) in total, GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS (further arguments of srun).
# GPUS_PER_NODE=0 requests no GPU and starts CPU processes, TASKS_PER_NODE (1) on each node.
set -euo pipefail
if ! command -v srun >/dev/null; then
    echo "error: srun not found: run this on a machine of a Slurm cluster, or use tools/dist_train.sh" >&2
    exit 2
fi
partition=$1 job=$2
shift 2
# shellcheck source-path=SCRIPTDIR source=slurm_placement.sh
source "$(dirname "$0")/slurm_placement.sh"
# The signal before the time limit must not terminate a process that is still importing and cannot save yet.
# SRUN_ARGS is split into words on purpose.
# shellcheck disable=SC2016,SC2086
exec srun -p "$partition" --job-name="$job" "${placement[@]}" --ntasks="$gpus" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash -c 'trap "" USR1; exec "$@"' bash "${PYTHON:-python}" -u "$@" --launcher slurm
