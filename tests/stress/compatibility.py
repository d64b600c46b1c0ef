"""The core of mogacore on several versions of Python, torch and numpy.

    python tests/stress/compatibility.py --python 3.10=/usr/bin/python3.10 3.11=python3.11 3.12=python3.12 --out compat

For each row of ROWS whose Python is given, it makes a virtual environment with torch, torchvision, numpy and mmengine
but without mmcv and the task libraries, and runs the tests of networks, golden outputs, gradients and checkpoints. It
writes compatibility.json and one log per row. An environment takes up to 7 GB; without --keep it is
deleted after its row.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Python, torch, torchvision and numpy.
ROWS = (
    ('3.10', '2.4.1', '0.19.1', '1.26.4'),
    ('3.11', '2.8.0', '0.23.0', '2.2.6'),
    ('3.12', '2.11.0', '0.26.0', '1.26.4'),
    ('3.12', '2.11.0', '0.26.0', '2.2.6'),
    ('3.11', '2.13.0', '0.28.0', '2.2.6'),
)
# What the core imports; the versions are those of the pinned environment.
PINNED = (
    'addict', 'contourpy', 'cycler', 'fonttools', 'kiwisolver', 'markdown-it-py', 'matplotlib', 'mdurl', 'packaging',
    'platformdirs', 'Pygments', 'pyparsing', 'python-dateutil', 'PyYAML', 'rich', 'six', 'termcolor', 'tomli', 'yapf',
    'pillow', 'opencv-python-headless', 'onedl-mmengine', 'safetensors', 'scipy', 'timm',
    'pytest', 'pytest-xdist', 'execnet', 'exceptiongroup', 'iniconfig', 'pluggy',
)  # fmt: skip
TESTS = ('tests/models', 'tests/checkpoint', 'tests/published')


def pins():
    """Lines of the requirements files for PINNED."""
    lines = (ROOT / 'requirements.txt').read_text() + (ROOT / 'requirements-dev.txt').read_text()
    found = [line for line in lines.splitlines() if re.split('[=; ]', line)[0] in PINNED]
    missing = set(PINNED) - {re.split('[=; ]', line)[0] for line in found}
    if missing:
        sys.exit(f'error: {", ".join(sorted(missing))} not in the requirements files: correct PINNED')
    return found


def install(python, row, folder):
    """Make the environment; the error of pip if it cannot be installed, otherwise None."""
    _, torch, torchvision, numpy = row
    subprocess.run([python, '-m', 'venv', folder], check=True)
    pip = [folder / 'bin' / 'python', '-m', 'pip', 'install', '--quiet']
    requirements = folder / 'pinned.txt'
    requirements.write_text('\n'.join(pins()) + '\n')
    steps = (
        [f'torch=={torch}', f'torchvision=={torchvision}', f'numpy=={numpy}'],
        ['--no-deps', '-r', requirements],
        ['huggingface_hub', 'tqdm', f'numpy=={numpy}'],
    )
    for step in steps:
        done = subprocess.run([*pip, *step], capture_output=True, text=True)
        if done.returncode:
            return next((line for line in done.stderr.splitlines() if 'ERROR' in line), 'pip failed')
    return None


def run(row, python, out, jobs):
    """Result of one row, as a dict."""
    name = f'python{row[0]}-torch{row[1]}-numpy{row[3]}'
    folder, log = out / name, out / f'{name}.txt'
    found = dict(zip(('python', 'torch', 'torchvision', 'numpy'), row, strict=True))
    start = time.monotonic()
    error = install(python, row, folder)
    if error is not None:
        return dict(found, error=error)
    found['install_s'] = round(time.monotonic() - start)
    start = time.monotonic()
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHONNOUSERSITE': '1'}
    with log.open('w') as stream:
        subprocess.run(
            [folder / 'bin' / 'python', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-n', str(jobs), *TESTS],
            cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    lines = log.read_text().splitlines()
    for number, kind in re.findall(r'(\d+) (passed|failed|skipped|errors?)\b', lines[-1] if lines else ''):
        found[kind] = int(number)
    found['failures'] = [line for line in lines if line.startswith(('FAILED', 'ERROR'))]
    return dict(found, test_s=round(time.monotonic() - start))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', nargs='+', required=True, metavar='VERSION=EXECUTABLE')
    parser.add_argument('--out', type=Path, required=True, help='folder for environments and results')
    parser.add_argument('--torch', nargs='+', help='only these versions of torch')
    parser.add_argument('--jobs', type=int, default=2, help='parallel test processes; default 2')
    parser.add_argument('--keep', action='store_true', help='keep the environments')
    args = parser.parse_args()
    pythons = dict(entry.split('=', 1) for entry in args.python)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for row in ROWS:
        if row[0] in pythons and row[1] in (args.torch or [row[1]]):
            results.append(run(row, pythons[row[0]], out, args.jobs))
            print(json.dumps(results[-1]), flush=True)
            (out / 'compatibility.json').write_text(json.dumps(results, indent=1) + '\n')
            if not args.keep:
                for folder in out.glob('python*/'):
                    shutil.rmtree(folder)
    sys.exit(any(result.get('error') or result['failures'] or not result.get('passed') for result in results))


if __name__ == '__main__':
    main()
