# shellcheck shell=bash disable=SC2034
# Help and checks of the launch scripts, which source this file: a wrong setting is one line, before anything is started
# or queued.

fail() {
    echo "error: $*" >&2
    exit 2
}

# check_usage KIND MINIMUM [arguments of the script]: for --help, print the comment at the top of the script and the
# variables of its KIND (dist or slurm); with fewer than MINIMUM arguments, print the usage.
check_usage() {
    local kind=$1 minimum=$2
    shift 2
    case ${1:-} in
        -h | --help)
            sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
            "${kind}_variables"
            exit 0
            ;;
    esac
    if [ $# -lt "$minimum" ]; then
        sed -n 's/^# Usage: /usage: /p' "$0" >&2
        exit 2
    fi
}

dist_variables() {
    cat <<'END'
Variables:
  NNODES (1)            number of machines; run the script on each
  NODE_RANK (0)         number of this machine, from 0
  MASTER_ADDR           address of machine 0; by default this machine
  MASTER_PORT           free port on it; by default 29500, or any free one for a single machine
  OMP_NUM_THREADS       threads per process; by default its share of the cores
  PYTHON (python)       interpreter
END
}

slurm_variables() {
    cat <<'END'
Variables:
  GPUS (8)              number of processes in total, one per GPU
  GPUS_PER_NODE         GPUS, but at most 8; GPUS must be a multiple. 0 requests no GPU and starts CPU processes
  TASKS_PER_NODE (1)    processes per node with GPUS_PER_NODE=0
  CPUS_PER_TASK (5)     cores per process, for its data loader workers
  SRUN_ARGS             further arguments of srun, split at spaces
  STAGE                 folder on the local disk of each node, to which STAGE_DATA is copied first; may name variables of
                        the node, as in STAGE='$TMPDIR'
  STAGE_DATA            folder of data to copy, in which the config has its data root
  MASTER_ADDR           address of the first process; by default the first node of the job
  MASTER_PORT           free port on it; by default one that depends on the job
  PYTHON (python)       interpreter
END
}

# check_number NAME VALUE [MINIMUM]
check_number() {
    local minimum=${3:-1}
    if ! [[ $2 =~ ^(0|[1-9][0-9]{0,17})$ ]] || [ "$2" -lt "$minimum" ]; then
        fail "$1 is '$2': give an integer of at least $minimum"
    fi
}

check_port() {
    if [ -n "${MASTER_PORT:-}" ]; then
        check_number MASTER_PORT "$MASTER_PORT"
        [ "$MASTER_PORT" -le 65535 ] || fail "MASTER_PORT is '$MASTER_PORT': give a free port from 1024 to 65535"
    fi
}

# check_config CONFIG: path of a file or short name
check_config() {
    if [ ! -f "$1" ]; then
        "${PYTHON:-python}" -m mogacore.locations "$1" >/dev/null || exit 2
    fi
}

# check_checkpoint CHECKPOINT: path of a file, or an address
check_checkpoint() {
    if [[ $1 != *://* && ! -f $1 ]]; then
        fail "checkpoint $1 does not exist: give the path of a weight file"
    fi
}

# Check the variables of a Slurm job and set $gpus, $gpus_per_node, $cpus_per_task and $placement, the options of srun
# and sbatch that distribute the tasks.
slurm_settings() {
    gpus=${GPUS:-8}
    check_number GPUS "$gpus"
    gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    check_number GPUS_PER_NODE "$gpus_per_node" 0
    cpus_per_task=${CPUS_PER_TASK:-5}
    check_number CPUS_PER_TASK "$cpus_per_task"
    check_port
    if [ -n "${STAGE:-}" ]; then
        [[ $STAGE == [/$]* ]] || fail "STAGE is '$STAGE': give an absolute path on the nodes"
        [ -n "${STAGE_DATA:-}" ] || fail "STAGE is set, but STAGE_DATA is not: set it to the folder of data to copy"
        [ -d "$STAGE_DATA" ] || fail "STAGE_DATA $STAGE_DATA does not exist: set it to the folder of data to copy"
    elif [ -n "${STAGE_DATA:-}" ]; then
        fail "STAGE_DATA is set, but STAGE is not: set it to a folder on the local disk of the nodes"
    fi
    if [ "$gpus_per_node" = 0 ]; then
        check_number TASKS_PER_NODE "${TASKS_PER_NODE:-1}"
        placement=(--ntasks-per-node="${TASKS_PER_NODE:-1}")
    elif [ $((gpus % gpus_per_node)) != 0 ]; then
        fail "GPUS is $gpus and GPUS_PER_NODE $gpus_per_node: give a multiple of GPUS_PER_NODE"
    else
        placement=(--gres=gpu:"$gpus_per_node" --ntasks-per-node="$gpus_per_node")
    fi
    placement+=(--ntasks="$gpus" --cpus-per-task="$cpus_per_task")
}
