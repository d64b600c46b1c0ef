#!/usr/bin/env bash
# Test on a Slurm cluster, one task per GPU.
# Usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#        tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [arguments of tools/test.py]
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB CONFIG CHECKPOINT [arguments of tools/test.py]" >&2
    exit 2
fi
partition=$1 job=$2 config=$3 checkpoint=$4
shift 4
exec "$(dirname "$0")/slurm_run.sh" "$partition" "$job" "$(dirname "$0")/test.py" "$config" "$checkpoint" "$@"
