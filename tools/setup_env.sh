#!/usr/bin/env bash
# Set up the environment of this checkout: a virtual environment with requirements.txt, mmcv compiled, mogacore itself.
# Usage: bash tools/setup_env.sh; or source it, and python is the environment's and $root the checkout.
#   MOGACORE_VENV  folder of the environment; default: .venv in the checkout
#   PYTHON         Python 3.10 to 3.12 to make it with; default: the first that serves
#   MAX_JOBS       compilers at once; default: one a core, as far as memory goes
# A second call finds everything done; an interrupted one is taken up where it stopped. What is missing is told in one
# line, with exit code 2.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${MOGACORE_VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
venv_python=$venv/bin/python
state=$venv/.mogacore # a stamp for each step that is done, the lock, the log
log=$state/setup.log
need_mb=8000 # 5,400 installed, and 2,100 of downloads as long as pip works

fail() {
    echo "error: $*" >&2
    exit 2
}

# What step $1 was made from: when it changes, the step is done again.
stamp() {
    {
        "$venv_python" -c 'import sys; print(sys.version)'
        case $1 in
            packages) cat "$root/requirements.txt" ;;
            mmcv) cat "$root/requirements-mmcv.txt" && grep '^torch==' "$root/requirements.txt" ;;
            mogacore) echo "$root" && cat "$root/setup.py" "$root/mogacore/version.py" ;;
        esac
    } 2>/dev/null | sha256sum
}

is_done() {
    [ -f "$state/$1" ] && [ "$(cat "$state/$1")" = "$(stamp "$1")" ]
}

mark_done() {
    stamp "$1" >"$state/$1"
}

# Prints what a Python lacks for us: nothing where it serves.
python_probe='
import sys
from os.path import isfile, join
name = "python%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] < (3, 13):
    print("is %s: mogacore runs on 3.10 to 3.12" % name)
    sys.exit()
import sysconfig
from importlib.util import find_spec
if not (find_spec("venv") and find_spec("ensurepip")):
    print("makes no virtual environments: install %s-venv" % name)
elif not isfile(join(sysconfig.get_path("include"), "Python.h")):
    print("has no Python.h to compile mmcv with: install %s-dev" % name)
'

# Sets $base_python. Each candidate is run, since a name may be there and not work.
find_python() {
    local candidates=(python3.11 python3.12 python3.10 python3) candidate lacks reason=
    if [ -n "${PYTHON:-}" ]; then
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        lacks=$("$candidate" -c "$python_probe" 2>/dev/null) || continue
        if [ -z "$lacks" ]; then
            base_python=$candidate
            return
        fi
        reason=${reason:-$candidate $lacks}
    done
    fail "${reason:-no Python runs as ${candidates[*]}: install Python 3.10 to 3.12}, or set PYTHON to another"
}

check_compiler() {
    local candidate
    for candidate in ${CXX:+"$CXX"} c++ g++ clang++; do
        if "$candidate" --version >/dev/null 2>&1; then
            export CXX=$candidate
            return
        fi
    done
    fail "no C++ compiler (c++, g++, clang++), which mmcv needs: install one (Debian: g++)"
}

check_disk() {
    local free_mb used_mb
    free_mb=$(($(df -Pk "$venv" | awk 'NR == 2 {print $4}') / 1024))
    used_mb=$(($(du -sk "$venv" | cut -f 1) / 1024))
    if [ $((free_mb + used_mb)) -lt "$need_mb" ]; then
        fail "$venv needs $((need_mb - used_mb)) MB of disk, $free_mb MB are free: make room, or set MOGACORE_VENV to a folder on another disk"
    fi
}

# Run a command into the log; each half minute a line says for how long, and what it is at.
logged() {
    local since=$SECONDS beat status=0
    while sleep 30 >/dev/null 2>&1 && kill -0 $$; do
        printf '      %d:%02d  %s\n' $(((SECONDS - since) / 60)) $(((SECONDS - since) % 60)) "$(
            tail -n 400 "$log" | grep -oE '^ *(\[[0-9]+/[0-9]+\]|Collecting [^ ]*|Downloading [^ ]*|Building [^(]*|Installing )' |
                tail -n 1 | sed 's/^ *//; s/]$/] files compiled/'
        )"
    done 2>/dev/null 9>&- &
    beat=$!
    "$@" >>"$log" 2>&1 </dev/null || status=$?
    kill "$beat" 2>/dev/null || true
    wait "$beat" 2>/dev/null || true
    return "$status"
}

# --no-deps and --no-build-isolation: see requirements.txt. -v shows the compilers at work.
pip_install() {
    local status=0 reason
    TMPDIR=${TMPDIR:-$state/tmp} logged "$venv_python" -m pip --disable-pip-version-check --no-input install -v \
        --no-deps --no-build-isolation "$@" || status=$?
    if [ "$status" != 0 ]; then
        reason=$(grep -aE 'ERROR|Errno|error:' "$log" | tail -n 1 | sed 's/^ *//' | cut -c 1-200)
        fail "pip failed: ${reason:-it ended with status $status} (all of it: $log)"
    fi
}

mmcv_works() {
    "$venv_python" -W ignore -c '
import torch
from mmcv.ops import nms
nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5)' >>"$log" 2>&1
}

# mmcv compiles its GPU operators wherever torch sees a GPU, and then fails without an nvcc of the same CUDA as torch's.
install_mmcv() {
    local target options=() memory_mb jobs
    target=$("$venv_python" -W ignore -c '
import os, re, subprocess, torch
from torch.utils.cpp_extension import CUDA_HOME
def nvcc_release():
    try:
        said = subprocess.run([f"{CUDA_HOME}/bin/nvcc", "--version"], capture_output=True, text=True).stdout
    except OSError:
        return None
    return re.search(r"release (\d+)|$", said)[1]
cuda = torch.version.cuda
if os.environ.get("FORCE_CUDA") == "1":
    print("GPU")
elif not torch.cuda.is_available():
    print("CPU")
else:
    print("GPU" if nvcc_release() == cuda.split(".")[0] else f"nvcc of CUDA {cuda}")' 2>>"$log")
    case $target in
        CPU) ;;
        # A wheel in the cache of pip does not tell what it was compiled for.
        GPU) options=(--no-cache-dir --force-reinstall) ;;
        *)
            echo "      no $target: mmcv gets CPU operators only, and detectors will not run on the GPU; everything else will."
            echo "      For GPU operators install it, remove '$state/mmcv' and call this again."
            local -x CUDA_VISIBLE_DEVICES=
            ;;
    esac
    if [ -f "$state/mmcv" ]; then # of another torch
        options=(--no-cache-dir --force-reinstall)
    fi
    jobs=$(nproc)
    memory_mb=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
    if [ "$jobs" -gt $((memory_mb / 1500 + 1)) ]; then # a compiler at work on torch's headers takes as much
        jobs=$((memory_mb / 1500 + 1))
    fi
    local -x MAX_JOBS=${MAX_JOBS:-$jobs}
    pip_install ${options[@]+"${options[@]}"} -r "$root/requirements-mmcv.txt"
    if ! mmcv_works; then
        echo '      the mmcv that pip had in store does not work with this torch: compiling it'
        pip_install --no-cache-dir --force-reinstall -r "$root/requirements-mmcv.txt"
        mmcv_works || fail "mmcv is installed and its operators do not run: see the end of $log"
    fi
}

make_venv() {
    if [ -d "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ] && [ ! -d "$state" ]; then
        fail "$venv holds something else: set MOGACORE_VENV to a new folder"
    fi
    { mkdir -p "$state/tmp" && : >>"$log"; } 2>/dev/null ||
        fail "cannot write to $venv: set MOGACORE_VENV to a folder that you may write to"
    exec 9>"$state/lock"
    if command -v flock >/dev/null && ! flock -n 9; then
        echo "another call is setting up $venv: waiting for it"
        flock 9
    fi
    : >"$log"
    echo "[1/5] virtual environment $venv (log: $log)"
    if ! "$venv_python" -m pip --version >>"$log" 2>&1; then
        if ! logged "$base_python" -m venv "$venv" || ! "$venv_python" -m pip --version >>"$log" 2>&1; then
            fail "$base_python cannot make a virtual environment in $venv: remove that folder and call again (log: $log)"
        fi
    fi
}

set_up() {
    [ "$(uname -s) $(uname -m)" = 'Linux x86_64' ] ||
        fail "requirements.txt is for Linux x86_64, this is $(uname -s) $(uname -m): install your own torch and mmcv, then 'pip install .'"
    is_done mmcv || check_compiler
    "$venv_python" -m pip --version >/dev/null 2>&1 || find_python
    make_venv
    if ! is_done packages; then
        check_disk
        echo '[2/5] build tools'
        pip_install -c "$root/requirements.txt" setuptools wheel ninja cython numpy
        echo '[3/5] packages: 2.1 GB to download, then a few minutes'
        pip_install -r "$root/requirements.txt"
        mark_done packages
    fi
    if ! is_done mmcv; then
        echo '[4/5] mmcv: compiled on this machine, 7 to 13 minutes on two cores; seconds where pip has kept it'
        install_mmcv
        mark_done mmcv
    fi
    if ! is_done mogacore; then
        echo '[5/5] mogacore'
        pip_install -e "$root"
        mark_done mogacore
    fi
    rm -rf "$state/tmp"
    exec 9>&-
}

if ! { is_done packages && is_done mmcv && is_done mogacore; }; then
    set_up
    echo "environment ready in $((SECONDS / 60)):$(printf '%02d' $((SECONDS % 60))): $venv"
fi
export VIRTUAL_ENV=$venv PYTHON=$venv_python PATH=$venv/bin:$PATH
