"""End-to-end runs of the command-line tools on small data."""

import itertools
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from conftest import ROOT

from mogacore.datasets.digits import write_digits

pytest.importorskip('mmpretrain')

CONFIG = 'configs/classification/moganet-xtiny_digits.py'


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder to run tools in, with all 1,797 digits in data/ and a config that uses a few of them."""
    folder = tmp_path_factory.mktemp('project')
    write_digits(folder / 'data' / 'digits', parts=('classification',))
    (folder / 'small.py').write_text(f"""
_base_ = '{ROOT / CONFIG}'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), ffn_ratios=(2, 2, 2, 2))),
    head=dict(in_channels=32))
train_dataloader = dict(batch_size=32, num_workers=0, persistent_workers=False,
                        dataset=dict(times=1, dataset=dict(indices=128)))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(indices=40))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
""")
    return folder


def tool(name, *args, cwd, check=True):
    """Run a tool as a user would, and assert its success if ``check``; returns the completed process."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tools' / name, *map(str, args)],
        cwd=cwd, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def assert_one_line_error(done, message):
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('error: '), done.stderr
    assert re.search(message, lines[0]), lines[0]


@pytest.fixture(scope='module')
def trained(project):
    """Work dir of two epochs with the small config."""
    tool('train.py', 'small.py', '--work-dir', 'trained', cwd=project)
    return project / 'trained'


def test_training_writes_a_log_and_checkpoints(trained):
    assert (trained / 'epoch_2.pth').is_file()
    scalars = [json.loads(line) for line in next(trained.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    losses = [line['loss'] for line in scalars if 'loss' in line]
    assert len(losses) == 2 * 4
    assert losses[-1] < losses[0]


def test_work_dir_with_checkpoints_is_not_overwritten(project, trained):
    done = tool('train.py', 'small.py', '--work-dir', 'trained', cwd=project, check=False)
    assert_one_line_error(done, 'work dir trained already contains checkpoints: resume with --resume')


def test_testing_reproduces_the_accuracy_of_the_last_validation(project, trained):
    tool('test.py', 'small.py', trained / 'epoch_2.pth', '--out', 'result/metrics.json', cwd=project)
    report = json.loads((project / 'result' / 'metrics.json').read_text())
    scalars = [json.loads(line) for line in next(trained.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    validated = [line['accuracy/top1'] for line in scalars if 'accuracy/top1' in line]
    assert report['metrics']['accuracy/top1'] == pytest.approx(validated[-1], abs=1e-4)
    assert report['checkpoint'].endswith('epoch_2.pth')


def test_testing_draws_the_predictions(project, trained):
    tool('test.py', 'small.py', trained / 'epoch_2.pth', '--show-dir', 'shown', cwd=project)
    assert len(list((project / 'shown').rglob('*.png'))) == 40


def test_testing_averages_the_views_of_an_image(project, trained):
    """The unchanged view has the plain scores, the flipped view others, and both views together the mean."""
    scores = {}
    for name, flips in {'plain': None, 'same': [0.0], 'mirror': [1.0], 'both': [0.0, 1.0]}.items():
        config = project / f'{name}.py'
        views = '' if flips is None else f'tta_views = [[dict(type="RandomFlip", prob=p) for p in {flips}]]'
        config.write_text(f"""
_base_ = './small.py'
test_dataloader = dict(dataset=dict(indices=8))
test_evaluator = dict(_delete_=True, type='DumpResults', out_file_path='{project / name}.pkl')
{views}
""")
        flags = [] if flips is None else ['--tta', '--show-dir', f'shown {name}']
        tool('test.py', config, trained / 'epoch_2.pth', *flags, cwd=project)
        assert len(list((project / f'shown {name}').rglob('*.png'))) == (0 if flips is None else 8)
        scores[name] = torch.stack([item['pred_score'] for item in mmengine.load(project / f'{name}.pkl')])
    torch.testing.assert_close(scores['same'], scores['plain'])
    assert (scores['mirror'] - scores['plain']).abs().max() > 1e-4
    torch.testing.assert_close(scores['both'], (scores['plain'] + scores['mirror']) / 2)


def test_inference_writes_records_and_an_image(project, trained):
    source = project / 'data' / 'digits' / 'classification' / 'val' / '3'
    tool('infer.py', 'small.py', trained / 'epoch_2.pth', source, '--out-dir', 'inferred', cwd=project)
    report = json.loads((project / 'inferred' / 'predictions.json').read_text())
    images = sorted(str(path) for path in source.glob('*.png'))
    assert [record['image'] for record in report['predictions']] == images
    for record in report['predictions']:
        scores = [entry['score'] for entry in record['top']]
        assert scores == sorted(scores, reverse=True)
        assert record['pred_class'] == record['top'][0]['class'] == str(record['pred_label'])
    from PIL import Image

    image = np.asarray(Image.open(project / 'inferred' / 'predictions.png').convert('L'))
    assert image.shape[0] > 200 and image.std() > 10


def test_resumed_training_starts_where_it_stopped(project, trained):
    tool(
        'train.py', 'small.py', '--work-dir', 'resumed', '--resume', trained / 'epoch_1.pth', cwd=project
    )  # fmt: skip
    log = next((project / 'resumed').glob('*/*.log')).read_text()
    assert 'Epoch(train) [2]' in log and 'Epoch(train) [1]' not in log


def test_training_cannot_resume_from_weights_only(project, trained):
    torch.save(torch.load(trained / 'epoch_1.pth', weights_only=False)['state_dict'], project / 'weights.pth')
    args = ['small.py', '--work-dir', 'from_weights', '--resume', 'weights.pth']
    done = tool('train.py', *args, cwd=project, check=False)
    assert_one_line_error(done, r'weights\.pth contains no training state, .* load_from')


def test_mixed_precision_trains_on_a_cpu(project):
    done = tool(
        'train.py',
        'small.py',
        '--work-dir',
        'amp',
        '--precision=bf16',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        cwd=project,
    )
    assert 'CpuAmpOptimWrapper' in next((project / 'amp').glob('*/vis_data/config.py')).read_text()
    assert 'nan' not in done.stdout


FIRST_STEP = [
    '--cfg-options', 'model.backbone.norm_eval=True', 'train_cfg.max_epochs=1',
    'train_dataloader.dataset.dataset.pipeline.1.padding=0', 'train_dataloader.sampler.shuffle=False',
]  # fmt: skip


def first_loss(work_dir):
    scalars = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return next(json.loads(line)['loss'] for line in scalars if 'loss' in line)


def test_two_processes_start_with_the_loss_of_one_process_with_the_full_batch(project):
    tool('train.py', 'small.py', '--work-dir', 'one', *FIRST_STEP, cwd=project)
    done = subprocess.run(
        ['bash', ROOT / 'tools' / 'dist_train.sh', 'small.py', '2', '--work-dir', 'two', *FIRST_STEP,
         'train_dataloader.batch_size=16'],
        cwd=project, capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHON': sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert first_loss(project / 'two') == pytest.approx(first_loss(project / 'one'), abs=1e-5)


def malicious_file(path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (path.with_suffix('.ran'),))

    torch.save({'state_dict': {'head.fc.bias': Payload()}}, path)


def test_invalid_checkpoint_is_a_one_line_error(project, trained):
    complete = (trained / 'epoch_2.pth').read_bytes()
    (project / 'cut.pth').write_bytes(complete[: len(complete) // 2])
    (project / 'text.pth').write_text('<html>404</html>')
    malicious_file(project / 'evil.pth')
    for name in ('cut', 'text', 'evil', 'none'):
        done = tool('test.py', 'small.py', f'{name}.pth', cwd=project, check=False)
        assert_one_line_error(done, f'{name}.pth')
    assert not (project / 'evil.ran').exists()


def test_checkpoint_of_another_size_is_reported_with_the_first_mismatches(project, trained):
    done = tool('test.py', ROOT / CONFIG, trained / 'epoch_2.pth', cwd=project, check=False)
    assert_one_line_error(done, r'blocks1.*\(')


@pytest.mark.parametrize(
    'options, message',
    [
        (['model.backbone.arch=huge'], "arch 'huge' is unknown: choose from xtiny"),
        (['model.backbone.arch.embed_dims=[8,16,20,32]'], 'width 20 is not divisible by 8'),
        (['train_dataloader.dataset.dataset.data_root=data/none'], 'data folder data/none is missing: .*make_digits'),
        (['optim_wraper.optimizer.lr=1'], 'optim_wraper is not a setting: did you mean optim_wrapper'),
        (['visualizer.vis_backends.0.type=MLflowVisBackend'], 'not installed: .*mlflow'),
        (['visualizer.vis_backends.0.type=WandbVisBackend'], 'not installed: .*pip install wandb'),
        (['a=1', 'b'], "'b' is not key=value"),
        (["custom_hooks=[dict(type='EMAHook',interval=2)]"], 'contains a dict; write it in a config file'),
    ],
)
def test_invalid_setting_is_a_one_line_error(project, options, message):
    done = tool('train.py', 'small.py', '--work-dir', 'wrong', '--cfg-options', *options, cwd=project, check=False)
    assert_one_line_error(done, message)
    assert not (project / 'wrong').exists() or not list((project / 'wrong').glob('*.pth'))


@pytest.mark.parametrize(
    'script, args, message',
    [
        ('train.py', ['none.py'], 'config none.py not found'),
        ('train.py', ['small.py', '--resume', 'none.pth'], 'checkpoint none.pth does not exist'),
        ('train.py', ['small.py', '--launcher', 'slurm'], 'SLURM_PROCID.*start with'),
        ('train.py', ['small.py', '--work-dir', '.'], 'work dir . contains the config'),
        ('train.py', ['small.py', '--work-dir', 'small.py/run'], 'folder small.py/run cannot be created'),
        ('test.py', ['small.py', 'none.pth'], 'checkpoint none.pth does not exist'),
        (
            'test.py',
            ['small.py', 'small.py', '--out', 'data'],
            '--out data is a folder: give the name of a file in it, such as data/',
        ),
        ('infer.py', ['small.py', 'none.pth', 'none.png', '--out-dir', 'x'], 'input none.png does not exist'),
    ],
)
def test_missing_input_is_a_one_line_error(project, script, args, message):
    assert_one_line_error(tool(script, *args, cwd=project, check=False), message)


@pytest.mark.parametrize('script', sorted(path.name for path in (ROOT / 'tools').glob('*.py')))
def test_every_tool_has_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [script, '--help'])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools' / script), run_name='__main__')
    assert leave.value.code == 0
    assert 'usage:' in capsys.readouterr().out


XTINY = ('model.backbone.arch=xtiny', 'model.head.in_channels=192')
SIZES = {
    'xtiny': 'moganet-xtiny_8xb128_in1k-224.py',
    'timm': 'moganet-small_timm-recipe_8xb128_in1k-224.py',
    'tiny': 'moganet-tiny_8xb128_in1k-224.py',
    'small': 'moganet-small_8xb128_in1k-224.py',
    'base': 'moganet-base_8xb128_in1k-224.py',
    'large': 'moganet-large_8xb64-accu2_in1k-224.py',
    'xlarge': 'moganet-xlarge_8xb32-accu4_in1k-224.py',
}


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """A folder with 1,000 class folders in data/imagenet/{train,val}, and one random image in two of each."""
    from PIL import Image

    folder = tmp_path_factory.mktemp('imagenet')
    rng = np.random.default_rng(0)
    for split, index in itertools.product(('train', 'val'), range(1000)):
        path = folder / 'data' / 'imagenet' / split / str(index)
        path.mkdir(parents=True)
        if index > 1:
            continue
        Image.fromarray(rng.integers(0, 256, (240, 260, 3), dtype=np.uint8)).save(path / 'image.JPEG')
    return folder


@pytest.mark.parametrize('size, config', SIZES.items())
def test_published_config_of_each_size_trains_a_step_and_tests_a_batch(size, config, imagenet, tmp_path):
    loaders = [
        f'{split}_dataloader.{key}={value}'
        for split in ('train', 'val', 'test')
        for key, value in (('batch_size', 2), ('num_workers', 0), ('persistent_workers', False))
    ]
    recipe = ('custom_hooks.0.num_samples=2', 'param_scheduler.0.end=1')
    if size == 'timm':
        recipe = (*XTINY, 'param_scheduler.0.warmup=1', 'param_scheduler.0.cosine_end=2', 'param_scheduler.0.end=2')
    options = [*loaders, 'train_cfg.max_epochs=1', *recipe,
               'default_hooks.checkpoint.save_optimizer=False', 'default_hooks.checkpoint.save_best=None']  # fmt: skip
    path = ROOT / 'configs' / 'classification' / config
    tool('train.py', path, '--work-dir', tmp_path, '--cfg-options', *options, cwd=imagenet)
    tool('test.py', path, tmp_path / 'epoch_1.pth', '--out', tmp_path / 'metrics.json',
         '--cfg-options', *loaders, *(XTINY if size == 'timm' else ()), cwd=imagenet)  # fmt: skip
    assert 0 <= json.loads((tmp_path / 'metrics.json').read_text())['metrics']['accuracy/top1'] <= 100
    (tmp_path / 'epoch_1.pth').unlink()  # up to 1.4 GB
