#!/usr/bin/env bash
# Start SCRIPT in GPUS processes on this machine with torchrun; dist_train.sh and dist_test.sh call it.
# Usage: tools/dist_run.sh GPUS SCRIPT [arguments of SCRIPT]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launch_checks.sh
source "$(dirname "$0")/launch_checks.sh"
check_usage dist 2 "$@"
gpus=$1 nodes=${NNODES:-1} node=${NODE_RANK:-0}
shift
check_number GPUS "$gpus"
check_number NNODES "$nodes"
check_number NODE_RANK "$node" 0
[ "$node" -lt "$nodes" ] || fail "NODE_RANK is $node, but NNODES is $nodes: give 0 to $((nodes - 1))"
check_port
# A single machine uses any free port, so that two concurrent jobs do not collide on the default one.
if [ "$nodes" = 1 ] && [ -z "${MASTER_PORT:-}" ]; then
    rendezvous=(--standalone)
else
    port=${MASTER_PORT:-29500}
    # torchrun reports an occupied port in a traceback.
    if [ "$node" = 0 ] && ! "${PYTHON:-python}" -c '
import socket, sys
with socket.socket() as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("", int(sys.argv[1])))
        server.listen()
    except OSError:
        sys.exit(1)' "$port"; then
        fail "MASTER_PORT $port is already in use or not allowed on this machine: set another one"
    fi
    rendezvous=(--nnodes "$nodes" --node-rank "$node"
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "$port")
fi
# Without this, each process uses one thread per core and the processes compete for the cores.
cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > gpus ? cores / gpus : 1))}
exec "${PYTHON:-python}" -m torch.distributed.run "${rendezvous[@]}" --nproc-per-node "$gpus" "$@" --launcher pytorch
