#!/usr/bin/env bash
# Set up everything, then train, test and run the smallest MogaNet on the bundled handwritten digits.
# Usage: bash tools/quickstart.sh; each call writes to a new folder in work_dirs/quickstart
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$root"

config=configs/classification/moganet-xtiny_digits.py
work_dir=work_dirs/quickstart/$(date +%Y%m%d-%H%M%S)
started=$SECONDS

python -W ignore tools/make_digits.py --parts classification
python -W ignore tools/train.py "$config" --work-dir "$work_dir"
checkpoint=$(find "$work_dir" -maxdepth 1 -name 'best_*.pth')
python -W ignore tools/test.py "$config" "$checkpoint" --work-dir "$work_dir" --out "$work_dir/metrics.json"
python -W ignore tools/infer.py "$config" "$checkpoint" data/digits/classification/val --out-dir "$work_dir/predictions"

WORK_DIR=$work_dir CHECKPOINT=$checkpoint TOOK=$((SECONDS - started)) python - <<'EOF'
import json
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

work_dir = Path(os.environ['WORK_DIR'])
metrics = json.loads((work_dir / 'metrics.json').read_text())['metrics']
predictions = json.loads((work_dir / 'predictions' / 'predictions.json').read_text())['predictions']
table = Table('item', 'result', title='MogaNet-XT on handwritten digits')
table.add_row('held-out digits', str(len(predictions)))
table.add_row('top-1 accuracy', f'{metrics["accuracy/top1"]:.2f} %')
table.add_row('time without setup', '{} min {} s'.format(*divmod(int(os.environ['TOOK']), 60)))
table.add_row('weights', os.environ['CHECKPOINT'])
table.add_row('image', str(work_dir / 'predictions' / 'predictions.png'))
Console(width=120).print(table)
EOF
