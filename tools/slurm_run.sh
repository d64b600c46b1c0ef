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
if [ -n "${STAGE:-}" ] && ! [ -v SLURM_JOB_ID ]; then
    # The copy and SCRIPT are two steps on the same nodes. SRUN_ARGS is split into words on purpose.
    # shellcheck disable=SC2086
    exec salloc -p "$partition" --job-name="$job" "${placement[@]}" ${SRUN_ARGS:-} bash "$0" "$partition" "$job" "$@"
elif [ -n "${STAGE:-}" ]; then
    name=$("${PYTHON:-python}" -m mogacore.stage "$STAGE_DATA")
    srun --job-name=stage --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        --cpus-per-task="$cpus_per_task" --gres=none --kill-on-bad-exit=1 \
        bash -c 'trap "" USR1; exec "$@"' bash "${PYTHON:-python}" -m mogacore.stage "$STAGE_DATA" "$STAGE" "$name"
    MOGACORE_STAGED_FROM=$(realpath "$STAGE_DATA")
    export MOGACORE_STAGED_FROM MOGACORE_STAGED_TO="$STAGE/$name"
fi
# The signal before the time limit must not terminate a process that is still importing and cannot save yet.
# SRUN_ARGS is split into words on purpose.
# shellcheck disable=SC2016,SC2086
exec srun -p "$partition" --job-name="$job" "${placement[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash -c 'trap "" USR1; exec "$@"' bash "${PYTHON:-python}" -u "$@" --launcher slurm
