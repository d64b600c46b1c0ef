#!/usr/bin/env bash
# Set up everything, then train, test and use the smallest MogaNet on real handwritten digits that come with it.
# Usage: bash tools/quickstart.sh; each call has a folder of its own under work_dirs/quickstart
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$root"

config=configs/classification/moganet-xtiny_digits.py
work_dir=work_dirs/quickstart/$(date +%Y%m%d-%H%M%S)

python tools/make_digits.py --parts classification
python tools/train.py "$config" --work-dir "$work_dir"

# The best epoch where the config keeps it, else the last one, which mmengine notes in a file.
checkpoint=$(find "$work_dir" -maxdepth 1 -name 'best_*.pth' | sort | tail -n 1)
checkpoint=${checkpoint:-$(cat "$work_dir/last_checkpoint")}
python tools/test.py "$config" "$checkpoint" --work-dir "$work_dir" --out "$work_dir/metrics.json"
python tools/infer.py "$config" "$checkpoint" data/digits/classification/val --out-dir "$work_dir/predictions"

echo "checkpoint:   $root/$checkpoint"
echo "metrics:      $root/$work_dir/metrics.json"
echo "predictions:  $root/$work_dir/predictions"
