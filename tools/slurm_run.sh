#!/usr/bin/env bash
# Start SCRIPT through srun, one task a GPU; slurm_train.sh and slurm_test.sh call it.
# Usage: tools/slurm_run.sh PARTITION JOB SCRIPT [arguments of SCRIPT]
# GPUS (8) in all, GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS: more for srun. GPUS_PER_NODE=0 asks for no GPU:
# CPU processes, TASKS_PER_NODE (1) on each node.
set -euo pipefail
if ! command -v srun >/dev/null; then
    echo "error: srun is not here: call this on a machine of a Slurm cluster, or use tools/dist_train.sh" >&2
    exit 2
fi
partition=$1 job=$2
shift 2
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
if [ "$gpus_per_node" = 0 ]; then
    placement=(--ntasks-per-node="${TASKS_PER_NODE:-1}")
else
    placement=(--gres=gpu:"$gpus_per_node" --ntasks-per-node="$gpus_per_node")
fi
# SRUN_ARGS is a list of words.
# shellcheck disable=SC2086
exec srun -p "$partition" --job-name="$job" "${placement[@]}" --ntasks="$gpus" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$@" --launcher slurm
