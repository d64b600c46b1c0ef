#!/usr/bin/env bash
# Start SCRIPT in GPUS processes on this machine with torchrun; dist_train.sh and dist_test.sh call it.
# Usage: tools/dist_run.sh GPUS SCRIPT [arguments of SCRIPT]
set -euo pipefail
gpus=$1
shift
case $gpus in
    '' | *[!0-9]* | 0)
        echo "error: GPUS must be a positive number of processes, not '$gpus'" >&2
        exit 2
        ;;
esac
# A single machine uses any free port, so that two concurrent jobs do not collide on the default one.
if [ "${NNODES:-1}" = 1 ] && [ -z "${MASTER_PORT:-}" ]; then
    rendezvous=(--standalone)
else
    rendezvous=(--nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}"
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}")
fi
# Without this, each process uses one thread per core and the processes compete for the cores.
cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > gpus ? cores / gpus : 1))}
exec "${PYTHON:-python}" -m torch.distributed.run "${rendezvous[@]}" --nproc-per-node "$gpus" "$@" --launcher pytorch
