"""The core of mogacore on several versions of Python, torch and numpy.

    python tests/stress/compatibility.py --python 3.10=/usr/bin/python3.10 3.11=python3.11 3.12=python3.12 --out compat
    python tests/stress/compatibility.py --python 3.10=/usr/bin/python3.10 --originals --out compat

For each row of ROWS whose Python is given, it makes a virtual environment with torch, torchvision, numpy and mmengine
but without mmcv and the task libraries, and runs the tests of networks, golden outputs, gradients and checkpoints. With
--originals, the row is that of ORIGINALS: the distributions of OpenMMLab instead of the forks that are pinned, and also
the tests that build, train and test models of the task libraries. It writes compatibility.json and one log per row. An
environment takes up to 7 GB; without --keep it is deleted after its row.
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
# The last releases of OpenMMLab; mmdet 3.3.0 needs mmcv before 2.2. mmcv is built without torch, like the pinned one.
ORIGINALS = ('3.10', '2.4.1', '0.19.1', '1.26.4')
ORIGINAL_PACKAGES = (
    'mmengine==0.10.7', 'mmpretrain==1.2.0', 'mmdet==3.3.0', 'mmsegmentation==1.2.2', 'mmpose==1.3.2',
    'xtcocotools==1.14.3', 'mmcv==2.1.0',
)  # fmt: skip
ITS_BUILDER = 'setuptools==79.0.1'  # newer ones lack what the build of mmcv 2.1.0 imports
# What the task libraries import.
OF_LIBRARIES = (
    'click', 'einops', 'ftfy', 'imageio', 'imaug', 'importlib_metadata', 'json-tricks', 'joblib', 'lazy_loader',
    'Markdown', 'mat4py', 'model-index', 'modelindex', 'munkres', 'ordered-set', 'prettytable', 'regex',
    'scikit-image', 'scikit-learn', 'shapely', 'shtab', 'terminaltables', 'threadpoolctl', 'tifffile', 'wcwidth',
    'zipp', 'faster-coco-eval', 'hypothesis', 'sortedcontainers', 'attrs',
)  # fmt: skip
TESTS = ('tests/models', 'tests/checkpoint', 'tests/published')
TESTS_OF_LIBRARIES = (
    'tests/evaluation', 'tests/test_configs.py', 'tests/test_dense_configs.py', 'tests/test_dense_tools.py',
    'tests/test_hand_configs.py', 'tests/test_libraries.py', 'tests/test_model_names.py', 'tests/test_modern_heads.py',
    'tests/test_tools.py',
)  # fmt: skip


def pins(names):
    """Lines of the requirements files for ``names``."""
    lines = (ROOT / 'requirements.txt').read_text() + (ROOT / 'requirements-dev.txt').read_text()
    found = [line for line in lines.splitlines() if re.split('[=; ]', line)[0] in names]
    missing = set(names) - {re.split('[=; ]', line)[0] for line in found}
    if missing:
        sys.exit(f'error: {", ".join(sorted(missing))} not in the requirements files: correct the names')
    return found


def install(python, row, folder, originals):
    """Make the environment; the error of pip if it cannot be installed, otherwise None."""
    _, torch, torchvision, numpy = row
    subprocess.run([python, '-m', 'venv', folder], check=True)
    pip = [folder / 'bin' / 'python', '-m', 'pip', 'install', '--quiet']
    requirements, builder = folder / 'pinned.txt', folder / 'builder.txt'
    names = set(PINNED + OF_LIBRARIES) - {'onedl-mmengine'} if originals else PINNED
    requirements.write_text('\n'.join(pins(names)) + '\n')
    steps = [
        [f'torch=={torch}', f'torchvision=={torchvision}', f'numpy=={numpy}'],
        ['--no-deps', '-r', requirements],
        ['huggingface_hub', 'tqdm', f'numpy=={numpy}'],
    ]
    environment = dict(os.environ)
    if originals:
        steps.append(['--no-deps', *ORIGINAL_PACKAGES])
        builder.write_text(f'{ITS_BUILDER}\n')
        environment['PIP_CONSTRAINT'] = str(builder)  # holds for what builds mmcv, too
    for step in steps:
        done = subprocess.run([*pip, *step], capture_output=True, text=True, env=environment)
        if done.returncode:
            return next((line for line in done.stderr.splitlines() if 'ERROR' in line), 'pip failed')
    return None


def run(row, python, out, jobs, originals):
    """Result of one row, as a dict."""
    name = f'python{row[0]}-torch{row[1]}-numpy{row[3]}' + '-originals' * originals
    folder, log = out / name, out / f'{name}.txt'
    found = dict(zip(('python', 'torch', 'torchvision', 'numpy'), row, strict=True))
    start = time.monotonic()
    error = install(python, row, folder, originals)
    if error is not None:
        return dict(found, error=error)
    found['install_s'] = round(time.monotonic() - start)
    start = time.monotonic()
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHONNOUSERSITE': '1'}
    tests = TESTS + TESTS_OF_LIBRARIES if originals else TESTS
    with log.open('w') as stream:
        subprocess.run(
            [folder / 'bin' / 'python', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-n', str(jobs), *tests],
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
    parser.add_argument('--originals', action='store_true', help='the distributions of OpenMMLab, instead of ROWS')
    parser.add_argument('--torch', nargs='+', help='only these versions of torch')
    parser.add_argument('--jobs', type=int, default=2, help='parallel test processes; default 2')
    parser.add_argument('--keep', action='store_true', help='keep the environments')
    args = parser.parse_args()
    pythons = dict(entry.split('=', 1) for entry in args.python)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for row in (ORIGINALS,) if args.originals else ROWS:
        if row[0] in pythons and row[1] in (args.torch or [row[1]]):
            results.append(run(row, pythons[row[0]], out, args.jobs, args.originals))
            print(json.dumps(results[-1]), flush=True)
            (out / 'compatibility.json').write_text(json.dumps(results, indent=1) + '\n')
            if not args.keep:
                for folder in out.glob('python*/'):
                    shutil.rmtree(folder)
    sys.exit(any(result.get('error') or result['failures'] or not result.get('passed') for result in results))


if __name__ == '__main__':
    main()
