"""Check the environment: report what works, and how to fix what does not.

Uses the standard library only and imports nothing of mogacore, so that it runs in a broken environment. Versions come
from package metadata. Each item is tested in its own process, so that one crash does not hide other results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, distributions

OK, ABSENT, FAIL = 'ok', 'absent', 'FAIL'
PROBE_SECONDS = 180

# Import name -> (names of the original distributions, name of the OneDL fork).
OPENMMLAB = {
    'mmengine': (('mmengine', 'mmengine-lite'), 'onedl-mmengine'),
    'mmcv': (('mmcv', 'mmcv-lite', 'mmcv-full'), 'onedl-mmcv'),
    'mmpretrain': (('mmpretrain',), 'onedl-mmpretrain'),
    'mmdet': (('mmdet',), 'onedl-mmdetection'),
    'mmseg': (('mmsegmentation',), 'onedl-mmsegmentation'),
    'mmpose': (('mmpose',), None),
}
OPENCVS = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')

PIP = 'pip install --no-deps -c requirements.txt'
NMS = 'nms(torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8]], device={0!r}), torch.tensor([0.9, 0.8], device={0!r}), 0.5)'
TOOLBOX = """
from importlib import import_module
import mogacore.registry
from mogacore.libraries import import_quietly
import_quietly('{0}')
import_module('{0}.registry').MODELS.build(dict(type='MogaNet', arch='xtiny'))
print('MogaNet built through its registry')
"""
TASKS = {'mmpretrain': 'classification', 'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpose': 'pose'}

# Code that fails if the item does not work; its last line of output goes into the table.
PROBES = {
    'torch': 'import torch; torch.ones(2, 2) @ torch.ones(2, 2)',
    'torchvision': 'import torch; from torchvision.ops import nms; ' + NMS.format('cpu'),
    'numpy': 'import numpy; numpy.ones(2) @ numpy.ones(2)',
    'opencv': 'import cv2, numpy; cv2.resize(numpy.ones((4, 4)), (2, 2))',
    'GPU': """
import os, torch
if torch.cuda.is_available():
    torch.ones(2, 2, device='cuda') @ torch.ones(2, 2, device='cuda')
    print(f'{torch.cuda.device_count()} x {torch.cuda.get_device_name()}')
elif os.path.exists('/proc/driver/nvidia/version') and os.environ.get('CUDA_VISIBLE_DEVICES') != '':
    raise RuntimeError(f'an NVIDIA driver is installed, but torch (CUDA {torch.version.cuda}) sees no GPU')
else:
    print('none: everything runs on the CPU')
""",
    'mmengine': 'from mmengine.runner import Runner',
    'mmcv': f"""
import torch
from mogacore import operators
operators.register()
from mmcv.ops import nms
{NMS.format('cpu')}
if torch.cuda.is_available():
    {NMS.format('cuda')}
print('operators of', operators.in_use(), 'run on CPU' + ' and GPU' * torch.cuda.is_available())
""",
    'mogacore': "import mogacore; mogacore.create_model('moganet_xtiny'); print(mogacore.__file__)",
    'faster-coco-eval': "import mogacore.coco_eval.cocoeval, mogacore.coco_eval.mask; print('computes COCO scores')",
    **{library: TOOLBOX.format(library) for library in TASKS},
}

ADVICE = {
    'torch': f'{PIP} torch, and the package that the error names',
    'torchvision': f'install matching versions: {PIP} torch torchvision',
    'numpy': f'{PIP} numpy',
    'opencv': f'{PIP} opencv-python-headless, which needs no window system',
    'GPU': 'install a torch built for a CUDA version that the driver supports (see nvidia-smi), or a newer driver',
    'mmengine': f'{PIP} onedl-mmengine, and the package that the error names',
    'mmcv': f'{PIP} onedl-mmcv, then python -m mogacore.operators --install',
    'mogacore': 'pip install --no-deps -e . in the checkout, and fix what fails above',
    'faster-coco-eval': f'{PIP} numpy faster-coco-eval: evaluates poses on numpy 2, and speeds up boxes and masks',
    'mmpose': f'{PIP} mmpose json-tricks munkres scipy faster-coco-eval, and fix what fails above',
    **{
        library: f'{PIP} {OPENMMLAB[library][1]}, and the package that the error names; fix what fails above'
        for library in ('mmpretrain', 'mmdet', 'mmseg')
    },
}
NEEDED = ('torch', 'numpy', 'mmengine', 'mogacore')  # the others serve single tasks
ORDER = ('torch', 'torchvision', 'GPU', 'numpy', 'opencv', 'mmengine', 'mmcv', 'mogacore', *TASKS, 'faster-coco-eval')


@dataclass(frozen=True)
class Finding:
    """One line of the table: ``status`` is OK, ABSENT or FAIL; ``advice`` is the fix for ABSENT and FAIL."""

    name: str
    status: str
    installed: str = ''
    detail: str = ''
    advice: str = ''


def installed_distributions(path: list[str] | None = None) -> dict[str, Distribution]:
    """Installed packages by normalized name, searched in ``path`` (default: ``sys.path``)."""
    found = distributions() if path is None else distributions(path=path)
    by_name: dict[str, Distribution] = {}
    for distribution in found:
        name = distribution.metadata['Name']
        if name:  # an uninstalled package can leave an empty folder
            by_name.setdefault(re.sub(r'[-_.]+', '-', name).lower(), distribution)
    return by_name


def release(version: str) -> tuple[int, ...]:
    """Numeric part of a version: (2, 13, 0) for 2.13.0+cpu."""
    numbers = re.match(r'[\d.]*\d', version)
    return tuple(int(number) for number in numbers[0].split('.') if number) if numbers else ()


def find_conflicts(packages: dict[str, Distribution]) -> list[Finding]:
    """Known conflicts between installed versions, from metadata alone."""
    versions = {name: package.version for name, package in packages.items()}

    def has(name: str, low: tuple[int, ...] = (0,), high: tuple[int, ...] = (10**9,)) -> bool:
        return name in versions and low <= release(versions[name]) < high

    def shown(*names: str) -> str:
        return ', '.join(f'{name} {versions[name]}' for name in names)

    conflicts = []

    def conflict(names: tuple[str, ...], detail: str, advice: str) -> None:
        conflicts.append(Finding('together', FAIL, shown(*names), detail, advice))

    for module in OPENMMLAB:
        names = [name for name, _ in providers(module, packages)]
        if len(names) > 1:
            keep = OPENMMLAB[module][1] or names[0]
            conflict(
                tuple(names),
                f"both install {module} and overwrite each other's files",
                f'pip uninstall -y {" ".join(names)}, then install one: {PIP} {keep}',
            )
    opencvs = tuple(name for name in OPENCVS if name in versions)
    if len(opencvs) > 1:
        conflict(
            opencvs,
            "all of them install cv2 and overwrite each other's files",
            f'pip uninstall -y {" ".join(opencvs)}, then {PIP} opencv-python-headless',
        )
    if has('torch', (0,), (2, 4)):
        conflict(('torch',), 'mogacore needs torch >= 2.4', ADVICE['torch'])
    if has('torch', (2, 13), (2, 14)) and versions['torch'].endswith('+cpu') and 'torchvision' in versions:
        conflict(
            ('torch', 'torchvision'),
            'operator torchvision::nms does not exist in the CPU builds of torch 2.13',
            ADVICE['torchvision'],
        )
    elif has('torch', (2,), (3,)) and has('torchvision', (0, 15), (1,)):
        wanted = release(versions['torch'])[1] + 15
        if release(versions['torchvision'])[1] != wanted:
            conflict(('torch', 'torchvision'), f'this torch needs torchvision 0.{wanted}', ADVICE['torchvision'])
    if has('numpy', (2,)) and 'xtcocotools' in versions and 'faster-coco-eval' not in versions:
        conflict(
            ('numpy', 'xtcocotools'),
            'xtcocotools (COCO scores of poses) fails on numpy 2',
            f'{PIP} faster-coco-eval, which mogacore uses instead',
        )
    if has('torch', (2, 6)):
        for name in OPENMMLAB['mmengine'][0]:
            if has(name) and 'onedl-mmengine' not in versions:
                conflict(
                    ('torch', name),
                    'the original mmengine cannot load ordinary checkpoints on torch >= 2.6',
                    f'pip uninstall -y {name}, then {PIP} onedl-mmengine; or install a torch below 2.6',
                )
    if has('setuptools', (82,)):
        conflict(('setuptools',), 'has no pkg_resources, which OpenMMLab code imports', f'{PIP} setuptools')
    return conflicts


def providers(module: str, packages: dict[str, Distribution]) -> list[tuple[str, str]]:
    """Installed distributions of an OpenMMLab module, as pairs of name and 'original' or 'OneDL'."""
    originals, fork = OPENMMLAB[module]
    return [(name, 'original') for name in originals if name in packages] + (
        [(fork, 'OneDL')] if fork in packages else []
    )


def describe(name: str, packages: dict[str, Distribution]) -> str:
    """Distribution and version of an item; empty if it is not installed."""
    if name in OPENMMLAB:
        return ', '.join(f'{dist} {packages[dist].version} ({kind})' for dist, kind in providers(name, packages))
    names = OPENCVS if name == 'opencv' else (name,)
    return ', '.join(f'{dist} {packages[dist].version}' for dist in names if dist in packages)


def run_probe(code: str) -> tuple[bool, str]:
    """Run code in a new Python process; return whether it succeeded and its last line of output."""
    try:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False, f'did not finish in {PROBE_SECONDS} s'
    if done.returncode < 0:
        return False, f'crashed with signal {-done.returncode}'
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode == 0, lines[-1].strip() if lines else ''


def examine(packages: dict[str, Distribution], progress: Callable[[str], None] = lambda line: None) -> list[Finding]:
    """Test every installed item, and list those that are not installed.

    Args:
        packages: Result of :func:`installed_distributions`.
        progress: Called with a line when a test ends.
    """
    described = {name: describe(name, packages) for name in ORDER}
    described['GPU'] = described['torch']
    # mogacore also runs from a checkout without being installed.
    tried = [name for name in ORDER if described[name] or name == 'mogacore']
    results = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        probes = {pool.submit(run_probe, PROBES[name]): name for name in tried}
        for number, probe in enumerate(as_completed(probes), 1):
            name = probes[probe]
            results[name] = probe.result()
            progress(f'{number} of {len(tried)} checked: {name} {OK if results[name][0] else FAIL}')
    findings = [Finding('Python', OK, platform.python_version(), sys.executable)]
    for name in ORDER:
        installed = '' if name == 'GPU' else described[name]
        if name not in results and name == 'GPU':  # the line of torch covers it
            continue
        if name not in results:
            purpose = f'needed for {TASKS[name]} only' if name in TASKS else 'not installed'
            status = FAIL if name in NEEDED else ABSENT
            findings.append(Finding(name, status, installed, purpose, ADVICE[name]))
            continue
        works, detail = results[name]
        findings.append(Finding(name, OK if works else FAIL, installed, detail, '' if works else ADVICE[name]))
    return findings + find_conflicts(packages)


def format_table(findings: list[Finding]) -> str:
    """One line per finding, followed by the fix if there is one."""
    widths = [max(len(text) for text in column) for column in zip(*map(_columns, findings), strict=True)]
    lines = []
    for finding in findings:
        cells = (text.ljust(width) for text, width in zip(_columns(finding), widths, strict=True))
        lines.append(f'{"  ".join(cells)}  {finding.detail}'.rstrip())
        if finding.advice:
            lines.append(f'{" " * widths[0]}  -> {finding.advice}')
    return '\n'.join(lines)


def _columns(finding: Finding) -> tuple[str, str, str]:
    return finding.name, finding.status, finding.installed


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('--json', action='store_true', help='print JSON')


def main(argv: list[str] | None = None, prog: str | None = None) -> int:
    """Print the table; return 0 if everything installed works, else 1."""
    parser = argparse.ArgumentParser(
        prog=prog, description='Check the environment: report what works, and how to fix what does not.'
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    findings = examine(installed_distributions(), _show if sys.stderr.isatty() else lambda line: None)
    healthy = all(finding.status != FAIL for finding in findings)
    if args.json:
        print(json.dumps(dict(ok=healthy, findings=[asdict(finding) for finding in findings]), indent=2))
    else:
        print(format_table(findings) + '\n')
        if healthy:
            print('Everything installed works.')
        else:
            print('Fix each FAIL as shown, or create a fresh environment: bash tools/setup_env.sh')
    return 0 if healthy else 1


if __name__ == '__main__':
    sys.exit(main())
