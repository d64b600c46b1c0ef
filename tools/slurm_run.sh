#!/usr/bin/env bash
# Start SCRIPT through srun, one task per GPU; called by slurm_train.sh and slurm_test.sh.
# Usage: tools/slurm_run.sh PARTITION JOB SCRIPT [arguments of SCRIPT]
# GPUS (8) in all, GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS: more for srun. GPUS_PER_NODE=0 asks for no GPU:
# CPU processes, TASKS_PER_NODE (1) on each node.
set -euo pipefail
if ! command -v srun >/dev/null; then
    echo "error: srun is not installed: run this on a machine of a Slurm cluster, or use tools/dist_train.sh" >&2
    exit 2
fi
partition=$1 job=$2
shift 2
# shellcheck source-path=SCRIPTDIR source=slurm_placement.sh
source "$(dirname "$0")/slurm_placement.sh"
# The warning before the time limit must not end a process that is still importing and cannot save yet.
# SRUN_ARGS is a list of words.
# shellcheck disable=SC2016,SC2086
exec srun -p "$partition" --job-name="$job" "${placement[@]}" --ntasks="$gpus" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash -c 'trap "" USR1; exec "$@"' bash "${PYTHON:-python}" -u "$@" --launcher slurm
