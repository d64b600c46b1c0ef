#!/usr/bin/env bash
# Train on several GPUs, or on several CPU processes without a GPU, on one or more machines.
# Usage: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# On several machines set NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
exec "$(dirname "$0")/dist_run.sh" "$gpus" "$(dirname "$0")/train.py" "$config" "$@"
