#!/usr/bin/env bash
# Write locks/: the requirements files with the hash of every file of each package, for Python 3.10 to 3.12. Run it after
# each change of a requirements file. It needs uv (pip install uv) and the package index, and downloads no package.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v uv >/dev/null || {
    echo 'error: uv is not installed: pip install uv' >&2
    exit 2
}
mkdir -p locks
for file in requirements*.txt; do
    uv pip compile --quiet --universal --python-version 3.10 --no-deps --generate-hashes --no-annotate --no-header \
        "$file" --output-file "locks/$file"
done
