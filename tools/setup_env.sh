#!/usr/bin/env bash
# Set up the environment of this checkout: a virtual environment with requirements.txt, mmcv and mogacore. pip checks
# every download against the hashes in locks/.
# Usage: bash tools/setup_env.sh [--dev]. When sourced, it also activates the environment and sets $root to the checkout.
#   --dev                   also install requirements-dev.txt and requirements-serve.txt: tests, checks, export,
#                           server, activation maps
#   MOGACORE_VENV           folder of the environment; default: .venv in the checkout
#   PYTHON                  Python 3.10 to 3.12 that creates it; default: the first one that works
#   MOGACORE_COMPILE_MMCV   1 compiles mmcv's own operators instead of using torchvision's: needs a C++ compiler and
#                           Python's headers, and for GPU operators an nvcc of torch's CUDA version
#   MAX_JOBS                parallel compile jobs; default: one per core, limited by memory
# A second call does nothing; a call after an interruption resumes. An error is one line, exit code 2.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
locks=$root/locks
venv=${MOGACORE_VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
venv_python=$venv/bin/python
state=$venv/.mogacore # a stamp per completed step, the lock, the log
log=$state/setup.log
need_mb=8000 # 5,800 installed, and 2,100 of downloads while pip runs
steps=(packages mmcv mogacore)
case ${1:-} in
    --dev) steps+=(dev) ;;
esac
if [ "${MOGACORE_COMPILE_MMCV:-0}" = 1 ]; then
    steps[1]=compiled-mmcv
fi

fail() {
    echo "error: $*" >&2
    exit 2
}

# Hash of the inputs of step $1: when it changes, the step is repeated.
stamp() {
    {
        "$venv_python" -c 'import sys; print(sys.version)'
        case $1 in
            packages) cat "$locks/requirements.txt" ;;
            dev) cat "$locks/requirements-dev.txt" "$locks/requirements-serve.txt" ;;
            mmcv) cat "$locks/requirements-mmcv.txt" ;;
            compiled-mmcv) cat "$locks/requirements-mmcv.txt" && grep '^torch==' "$locks/requirements.txt" ;;
            mogacore) echo "$root" && cat "$locks/requirements-mmcv.txt" "$root/setup.py" "$root/mogacore/version.py" ;;
        esac
    } 2>/dev/null | sha256sum
}

is_done() {
    if [ "$1" = mmcv ] && is_done compiled-mmcv; then # keep compiled operators
        return
    fi
    [ -f "$state/$1" ] && [ "$(cat "$state/$1")" = "$(stamp "$1")" ]
}

all_done() {
    local step
    for step in "${steps[@]}"; do
        is_done "$step" || return 1
    done
}

mark_done() {
    stamp "$1" >"$state/$1"
}

# Prints why a Python cannot be used; nothing if it can. Argument 1: "compiled-mmcv" if it must compile mmcv.
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
    print("cannot create virtual environments: install %s-venv" % name)
elif sys.argv[1:] == ["compiled-mmcv"] and not isfile(join(sysconfig.get_path("include"), "Python.h")):
    print("has no Python.h, which compiling mmcv needs: install %s-dev" % name)
'

# Sets $base_python. Each candidate is run, since one that exists may still not work.
find_python() {
    local candidates=(python3.11 python3.12 python3.10 python3) candidate lacks reason=
    if [ -n "${PYTHON:-}" ]; then
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        lacks=$("$candidate" -c "$python_probe" "${steps[1]}" 2>/dev/null) || continue
        if [ -z "$lacks" ]; then
            base_python=$candidate
            return
        fi
        reason=${reason:-$candidate $lacks}
    done
    fail "${reason:-no working Python among ${candidates[*]}: install Python 3.10 to 3.12}, or set PYTHON to another one"
}

check_compiler() {
    local candidate
    for candidate in ${CXX:+"$CXX"} c++ g++ clang++; do
        if "$candidate" --version >/dev/null 2>&1; then
            export CXX=$candidate
            return
        fi
    done
    fail "MOGACORE_COMPILE_MMCV=1 needs a C++ compiler (c++, g++, clang++): install one (Debian: g++), or unset it"
}

check_disk() {
    local free_mb used_mb
    free_mb=$(($(df -Pk "$venv" | awk 'NR == 2 {print $4}') / 1024))
    used_mb=$(($(du -sk "$venv" | cut -f 1) / 1024))
    if [ $((free_mb + used_mb)) -lt "$need_mb" ]; then
        fail "$venv needs $((need_mb - used_mb)) MB of disk space, but $free_mb MB are free: free some space, or set MOGACORE_VENV to a folder on another disk"
    fi
}

# Run a command with its output in the log; every half minute, print the elapsed time and the current step.
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

# --no-deps: see requirements.txt. -v logs the progress of compilers.
pip_install() {
    local status=0 reason
    TMPDIR=${TMPDIR:-$state/tmp} logged "$venv_python" -m pip --disable-pip-version-check --no-input install -v \
        --no-deps "$@" || status=$?
    if [ "$status" != 0 ]; then
        reason=$(grep -aE 'ERROR|Errno|error:' "$log" | tail -n 1 | sed 's/^ *//' | cut -c 1-200)
        fail "pip failed: ${reason:-exit status $status} (full log: $log)"
    fi
}

mmcv_works() {
    "$venv_python" -W ignore -c '
import torch
from mmcv.ops import nms
nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5)' >>"$log" 2>&1
}

# mmcv compiles GPU operators wherever torch sees a GPU, and fails without an nvcc of torch's CUDA version.
compile_mmcv() {
    local needs jobs memory_mb
    needs=$("$venv_python" -W ignore -c '
import os, re, subprocess, torch
from torch.utils.cpp_extension import CUDA_HOME
try:
    printed = subprocess.run([f"{CUDA_HOME}/bin/nvcc", "--version"], capture_output=True, text=True).stdout
except OSError:
    printed = ""
release = re.search(r"release (\d+)|$", printed)[1]
for_gpu = os.environ.get("FORCE_CUDA") == "1" or torch.cuda.is_available()
if for_gpu and release != torch.version.cuda.split(".")[0]:
    print(f"nvcc of CUDA {torch.version.cuda}")' 2>>"$log")
    if [ -n "$needs" ]; then
        fail "MOGACORE_COMPILE_MMCV=1 needs $needs on a machine with a GPU: install it, or unset it to use the operators of torchvision"
    fi
    jobs=$(nproc)
    memory_mb=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
    if [ "$jobs" -gt $((memory_mb / 1500 + 1)) ]; then # memory of one compiler for torch's headers
        jobs=$((memory_mb / 1500 + 1))
    fi
    pip_install --no-build-isolation -c "$root/requirements.txt" ninja
    # -g0: no debug symbols, which halves the time per file. A wheel in pip's cache may be built for another torch.
    CFLAGS="${CFLAGS:-} -g0" MAX_JOBS=${MAX_JOBS:-$jobs} pip_install --no-build-isolation --no-cache-dir \
        --force-reinstall --require-hashes -r "$locks/requirements-mmcv.txt"
    mmcv_works || fail "mmcv is installed, but its operators do not run: see the end of $log"
}

make_venv() {
    if [ -d "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ] && [ ! -d "$state" ]; then
        fail "$venv is not an environment of mogacore: set MOGACORE_VENV to a new folder"
    fi
    { mkdir -p "$state/tmp" && : >>"$log"; } 2>/dev/null ||
        fail "cannot write to $venv: set MOGACORE_VENV to a folder that you may write to"
    exec 9>"$state/lock"
    if command -v flock >/dev/null && ! flock -n 9; then
        echo "another process is setting up $venv: waiting"
        flock 9
    fi
    : >"$log"
    echo "[1/4] virtual environment $venv (log: $log)"
    if ! "$venv_python" -m pip --version >>"$log" 2>&1; then
        if ! logged "$base_python" -m venv "$venv" || ! "$venv_python" -m pip --version >>"$log" 2>&1; then
            fail "$base_python cannot create a virtual environment in $venv: remove that folder and try again (log: $log)"
        fi
    fi
}

set_up() {
    [ "$(uname -s) $(uname -m)" = 'Linux x86_64' ] ||
        fail "requirements.txt is for Linux x86_64, this is $(uname -s) $(uname -m): install your own torch and OpenMMLab packages, then 'pip install .'"
    [ "${steps[1]}" = mmcv ] || is_done compiled-mmcv || check_compiler
    "$venv_python" -m pip --version >/dev/null 2>&1 || find_python
    make_venv
    if ! is_done packages; then
        check_disk
        echo '[2/4] packages: 2.1 GB to download, then a few minutes'
        # What builds the source distributions: entries of several lines, each but the last ending in a backslash.
        sed -n '/^\(setuptools\|wheel\)==/,/[^\\]$/p' "$locks/requirements.txt" >"$state/build.txt"
        pip_install --require-hashes -r "$state/build.txt"
        pip_install --no-build-isolation --require-hashes -r "$locks/requirements.txt"
        mark_done packages
    fi
    if ! is_done "${steps[1]}"; then
        if [ "${steps[1]}" = mmcv ]; then
            echo '[3/4] mmcv'
            # Built in isolation, where torch is absent, it is pure Python.
            pip_install --require-hashes -r "$locks/requirements-mmcv.txt"
        else
            echo '[3/4] mmcv: compiled on this machine, 6 to 13 minutes on two cores'
            compile_mmcv
        fi
        mark_done "${steps[1]}"
    fi
    if ! is_done mogacore; then
        echo '[4/4] mogacore'
        pip_install --no-build-isolation -e "$root"
        logged "$venv_python" -m pip uninstall --yes xtcocotools pycocotools # left from the environment of an earlier version
        for package in operators coco_eval; do # for the libraries' own tools, which do not import mogacore
            logged "$venv_python" -W ignore -m "mogacore.$package" --install ||
                fail "mogacore.$package cannot be installed: see the end of $log"
        done
        mark_done mogacore
    fi
    if [ "${steps[3]:-}" = dev ] && ! is_done dev; then
        echo '[dev] packages for tests, checks, export, server and activation maps'
        pip_install --no-build-isolation --require-hashes -r "$locks/requirements-dev.txt" \
            -r "$locks/requirements-serve.txt"
        mark_done dev
    fi
    rm -rf "$state/tmp"
    exec 9>&-
}

if ! all_done; then
    set_up
    echo "environment ready in $((SECONDS / 60)):$(printf '%02d' $((SECONDS % 60))): $venv"
fi
export VIRTUAL_ENV=$venv PYTHON=$venv_python PATH=$venv/bin:$PATH
