#!/usr/bin/env bash
# Train on a Slurm cluster, one task per GPU.
# Usage: tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [arguments of tools/train.py]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launch_checks.sh
source "$(dirname "$0")/launch_checks.sh"
check_usage slurm 4 "$@"
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
check_config "$config"
exec "$(dirname "$0")/slurm_run.sh" "$partition" "$job" "$(dirname "$0")/train.py" "$config" --work-dir "$work_dir" "$@"
