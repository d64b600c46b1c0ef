"""Training at four times the published rate stays finite, and the same seed gives the same weights.

    python tests/stress/training_numbers.py --out numbers [--only finite|repeat] [--case small bf16] [--steps 300]

"finite" trains XT and S in fp32, bf16 and fp16 with gate_fp32 on the digits at 4e-3, four times the published rate of
1e-3, in batches of 16 instead of 1024, and checks each loss and the final weights. Without a GPU, fp16 is in batches of
4, since a step takes seconds, and S only with "--case small fp16". "repeat" trains a config of each task twice for 100
steps with the same seed and compares the two checkpoints bit by bit. The digits must be in data/digits ("mogacore data
digits"). Writes numbers.json.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 'classification/moganet-xtiny_digits'
TASKS = {
    DIGITS: 64,
    'detection/retinanet_moganet-xtiny_fpn_digits': 2,
    'detection/mask-rcnn_moganet-xtiny_fpn_digits': 2,
    'segmentation/semantic-fpn_moganet-xtiny_digits': 2,
    'pose/td-hm_moganet-xtiny_digits': 8,
    'video_prediction/simvp_moganet_moving-digits': 2,
}


def train(config, work_dir, *flags, **options):
    """Run tools/train.py in a process of its own; the seconds it took."""
    settings = [f'{key.replace("__", ".")}={value}' for key, value in options.items()]
    command = [sys.executable, '-W', 'ignore', ROOT / 'tools' / 'train.py', config, '--work-dir', work_dir, *flags]
    paths = [str(Path(__file__).parent), os.environ.get('PYTHONPATH')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}  # to import half_precision
    start = time.monotonic()
    done = subprocess.run(
        [*map(str, command), '--cfg-options', *settings], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f'error: {config} failed: {done.stderr.strip().splitlines()[-1]}')
    return round(time.monotonic() - start)


def weights(work_dir):
    """The final weights of a run."""
    (path,) = work_dir.glob('iter_*.pth')
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def finite(arch, precision, steps, out):
    """Losses and weights of one training, as a dict."""
    work_dir = out / f'{arch}-{precision}'
    embed = {'xtiny': 192, 'small': 512}[arch]
    options = dict(
        model__backbone__arch=arch, model__head__in_channels=embed, optim_wrapper__optimizer__lr=4e-3,
        train_dataloader__batch_size=16, default_hooks__logger__interval=1,
        train_cfg__by_epoch=False, train_cfg__max_iters=steps, train_cfg__val_interval=steps,
    )  # fmt: skip
    config, flags = DIGITS, ['--seed', 0, '--precision', precision]
    if precision == 'fp16':
        options['model__backbone__gate_fp32'] = True
        if not torch.cuda.is_available():
            config, flags = out / 'float16.py', flags[:2]
            base = ROOT / 'configs' / f'{DIGITS}.py'
            config.write_text(
                f"_base_ = {str(base)!r}\ncustom_imports = dict(imports=['half_precision'])\n"
                "optim_wrapper = dict(type='CpuFloat16OptimWrapper')\n"
            )
            options['train_dataloader__batch_size'] = 4
    seconds = train(config, work_dir, *flags, **options)
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    accuracy = next(line['accuracy/top1'] for line in lines if 'accuracy/top1' in line)
    state = weights(work_dir)
    return dict(
        arch=arch, precision=precision, steps=len(losses), first=losses[0], last=sum(losses[-20:]) / 20,
        top1=accuracy, finite=all(map(math.isfinite, losses)) and all(map(_is_finite, state.values())),
        seconds=seconds,
    )  # fmt: skip


def _is_finite(tensor):
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def repeat(config, batch_size, steps, out):
    """The number of tensors that differ between two runs of a config, as a dict."""
    states = []
    for number in (1, 2):
        work_dir = out / f'{config.replace("/", "-")}-{number}'
        options = dict(
            train_dataloader__batch_size=batch_size, train_cfg__by_epoch=False, train_cfg__max_iters=steps,
            train_cfg__val_interval=10 * steps,
        )  # fmt: skip
        seconds = train(config, work_dir, '--seed', 0, **options)
        states.append(weights(work_dir))
    one, other = states
    different = [name for name in one if not torch.equal(one[name], other[name])]
    return dict(config=config, steps=steps, tensors=len(one), different=different, seconds=seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder for the runs and the results')
    parser.add_argument('--only', choices=('finite', 'repeat'))
    parser.add_argument('--case', nargs=2, metavar=('ARCH', 'PRECISION'), help='only this one of the first part')
    parser.add_argument('--steps', type=int, default=300, help='steps of the first part; default 300')
    args = parser.parse_args()
    results = dict(finite=[], repeat=[])
    jobs = []
    if args.only != 'repeat':
        jobs += [
            ('finite', finite, (arch, precision, args.steps))
            for arch in ('xtiny', 'small')
            for precision in ('fp32', 'bf16', 'fp16')
            if args.case in (None, [arch, precision])
            if args.case or (arch, precision) != ('small', 'fp16') or torch.cuda.is_available()
        ]
    if args.only != 'finite' and args.case is None:
        jobs += [('repeat', repeat, (config, size, 100)) for config, size in TASKS.items()]
    if not jobs:
        parser.error('no run is left: --case is of the first part, such as small bf16')
    args.out.mkdir(parents=True)
    for number, (part, check, settings) in enumerate(jobs, 1):
        results[part].append(check(*settings, args.out))
        print(f'{number}/{len(jobs)}', json.dumps(results[part][-1]), flush=True)
        (args.out / 'numbers.json').write_text(json.dumps(results, indent=1) + '\n')
    failed = [run for run in results['finite'] if not run['finite']]
    failed += [run for run in results['repeat'] if run['different']]
    sys.exit(bool(failed))


if __name__ == '__main__':
    main()
