#!/usr/bin/env bash
# Test on a Slurm cluster, one task per GPU.
# Usage: tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [arguments of tools/test.py]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launch_checks.sh
source "$(dirname "$0")/launch_checks.sh"
check_usage slurm 4 "$@"
partition=$1 job=$2 config=$3 checkpoint=$4
shift 4
check_config "$config"
check_checkpoint "$checkpoint"
exec "$(dirname "$0")/slurm_run.sh" "$partition" "$job" "$(dirname "$0")/test.py" "$config" "$checkpoint" "$@"
