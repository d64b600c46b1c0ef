# shellcheck shell=bash disable=SC2034
# Sets $gpus and $placement, the srun and sbatch options that distribute the tasks; sourced by slurm_run.sh and
# sbatch_train.sh. GPUS (8) is the total, GPUS_PER_NODE (8) the number per node. GPUS_PER_NODE=0 requests no GPU and
# starts CPU processes, TASKS_PER_NODE (1) on each node.
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
if [ "$gpus_per_node" = 0 ]; then
    placement=(--ntasks-per-node="${TASKS_PER_NODE:-1}")
else
    placement=(--gres=gpu:"$gpus_per_node" --ntasks-per-node="$gpus_per_node")
fi
