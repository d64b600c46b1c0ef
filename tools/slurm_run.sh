#!/usr/bin/env bash
# Start SCRIPT through srun, one task per GPU; slurm_train.sh and slurm_test.sh call it.
# Usage: tools/slurm_run.sh PARTITION JOB SCRIPT [arguments of SCRIPT]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launch_checks.sh
source "$(dirname "$0")/launch_checks.sh"
check_usage slurm 3 "$@"
partition=$1 job=$2
shift 2
slurm_settings
command -v srun >/dev/null || fail "srun not found: run this on a machine of a Slurm cluster, or use tools/dist_train.sh"
# The signal before the time limit must not terminate a process that is still importing and cannot save yet.
# SRUN_ARGS is split into words on purpose.
# shellcheck disable=SC2016,SC2086
exec srun -p "$partition" --job-name="$job" "${placement[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash -c 'trap "" USR1; exec "$@"' bash "${PYTHON:-python}" -u "$@" --launcher slurm
