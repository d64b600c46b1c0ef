#!/usr/bin/env bash
# Test on several GPUs, or on several CPU processes without a GPU, on one or more machines.
# Usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launch_checks.sh
source "$(dirname "$0")/launch_checks.sh"
check_usage dist 3 "$@"
config=$1 checkpoint=$2 gpus=$3
shift 3
check_config "$config"
check_checkpoint "$checkpoint"
exec "$(dirname "$0")/dist_run.sh" "$gpus" "$(dirname "$0")/test.py" "$config" "$checkpoint" "$@"
