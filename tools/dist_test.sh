#!/usr/bin/env bash
# Test on several GPUs, or on several CPU processes without a GPU, on one or more machines.
# Usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# On several machines set NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
    exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
exec "$(dirname "$0")/dist_run.sh" "$gpus" "$(dirname "$0")/test.py" "$config" "$checkpoint" "$@"
