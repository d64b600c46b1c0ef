#!/usr/bin/env bash
# Set up everything, then run the checks and the tests.
# Usage: bash tools/run_tests.sh [arguments of pytest]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" --dev
cd "$root"
python -m ruff check .
python -m ruff format --check .
lint-imports
mypy
# One process more than cores, since tests of clusters and stopped runs spend time waiting. One thread each, so that
# processes do not compete for cores.
OMP_NUM_THREADS=1 python -m pytest --numprocesses "$(($(nproc) + 1))" --maxprocesses 8 --dist worksteal "$@"
