#!/usr/bin/env bash
# Train on several GPUs, or on several CPU processes without a GPU, on one or more machines.
# Usage: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launch_checks.sh
source "$(dirname "$0")/launch_checks.sh"
check_usage dist 2 "$@"
config=$1 gpus=$2
shift 2
check_config "$config"
exec "$(dirname "$0")/dist_run.sh" "$gpus" "$(dirname "$0")/train.py" "$config" "$@"
