"""What is published of a small training with averaged weights, and what it is worth."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, TINY_ARCH
from small_models import CHANGES

from mogacore.checkpoint import load, read
from mogacore.cli.publish import main
from mogacore.datasets.digits import write_digits
from mogacore.engine import plain_config
from mogacore.engine.config import leaves, load_config
from mogacore.engine.runner import test as run_test
from mogacore.engine.runner import train
from mogacore.engine.trained import load_trained
from mogacore.errors import UserError
from mogacore.inference.predictor import infer
from mogacore.zoo.publish import find_config, newest_checkpoints, publish

pytest.importorskip('mmpretrain')

CONFIG = f"""
_base_ = '{ROOT}/configs/classification/moganet-xtiny_digits.py'
train_dataloader = dict(batch_size=32, num_workers=0, persistent_workers=False,
                        dataset=dict(times=1, dataset=dict(indices=64)))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(indices=40))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3)
param_scheduler = None
custom_hooks = [dict(type='EMAHook', momentum=0.3)]
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with the digits, and the work dir ``run`` of three epochs of MogaNet-XT on 64 of them."""
    folder = tmp_path_factory.mktemp('published')
    write_digits(folder / 'data' / 'digits', parts=('classification',))
    (folder / 'tiny_digits.py').write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train('tiny_digits.py', work_dir='run', cfg_options=dict(experiment_name='publish'))
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope='module')
def published(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        publish('run', 'published')
    return folder / 'published'


def best(folder):
    (path,) = (folder / 'run').glob('best_*.pth')
    return path


def weight_file(published):
    (path,) = (path for path in published.iterdir() if path.suffix in ('.pth', '.safetensors'))
    return path


def test_the_file_has_only_the_validated_weights_and_its_hash(here, published):
    path = weight_file(published)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f'tiny_digits-{digest[:8]}.pth'
    container, original = read(path), read(best(here))
    assert set(container) == {'meta', 'state_dict'} and 'ema_state_dict' in original
    assert list(container['state_dict']) == list(original['state_dict'])
    assert all(torch.equal(value, original['state_dict'][name]) for name, value in container['state_dict'].items())
    assert container['meta']['dataset_meta']['classes'] == original['meta']['dataset_meta']['classes']
    assert path.stat().st_size < best(here).stat().st_size * 0.6
    assert {file.name for file in published.iterdir()} == {path.name, 'tiny_digits.py', 'metrics.json', 'README.md'}


def test_a_test_of_the_published_files_gives_the_metrics_of_the_original(here, published):
    options = dict(cfg_options=dict(experiment_name='publish_test'))
    original = run_test('tiny_digits.py', str(best(here)), work_dir='tested', **options)
    options = dict(cfg_options=dict(experiment_name='publish_test_2'))
    found = run_test(str(published / 'tiny_digits.py'), str(weight_file(published)), work_dir='tested', **options)
    assert found == original
    report = json.loads((published / 'metrics.json').read_text())
    assert report['published']['scores'] == pytest.approx(original, abs=1e-4)
    lines = [json.loads(line) for line in next(here.glob('run/*/vis_data/scalars.json')).read_text().splitlines()]
    scores = {line['step']: line['accuracy/top1'] for line in lines if 'accuracy/top1' in line}
    assert report['last'] == dict(epoch=3, scores={'accuracy/top1': scores[3]})
    assert report['best']['accuracy/top1']['value'] == max(scores.values())
    assert f'epoch_{report["published"]["epoch"]}.pth' in best(here).name


def test_every_loader_reads_it(here, published):
    path, original = weight_file(published), load(best(here))
    assert set(load(path)) == set(original)
    model, _ = load_trained(load_config(published / 'tiny_digits.py'), str(path), 'cpu')
    card = (published / 'README.md').read_text()
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(published)
        exec(re.search(r'```python\n(import mogacore.*?)```', card, re.S)[1], names)
        exec(re.search(r'```python\n(from mmpretrain.*?)```', card, re.S)[1], theirs := {})
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        expected = model(images, mode='tensor')[-1]
        logits = model.head(model.extract_feat(images))
        torch.testing.assert_close(names['model'].eval()(images), logits)
        torch.testing.assert_close(theirs['model'].eval()(images, mode='tensor')[-1], expected)


def test_a_training_starts_from_it(here, published):
    options = {'load_from': str(weight_file(published)), 'train_cfg.max_epochs': 1, 'experiment_name': 'publish_more'}
    runner = train(str(published / 'tiny_digits.py'), work_dir='more', cfg_options=options)
    assert runner.iter == 2
    assert f'Load checkpoint from {weight_file(published)}' in next((here / 'more').glob('*/*.log')).read_text()


def test_the_config_is_that_of_the_user(here, published):
    ours, users = load_config(published / 'tiny_digits.py'), load_config('tiny_digits.py')
    for key in ('model', 'optim_wrapper', 'custom_hooks', 'default_hooks', 'val_evaluator'):
        assert ours[key] == users[key]
    assert ours.test_dataloader.dataset == users.test_dataloader.dataset
    assert ours.train_dataloader.sampler == users.train_dataloader.sampler
    assert (ours.train_cfg.type, ours.train_cfg.max_epochs) == ('EpochBasedTrainLoop', 3)
    text = (published / 'tiny_digits.py').read_text()
    assert str(here) not in text and 'work_dir' not in text


def test_paths_of_data_in_the_checkout_are_those_of_the_recipe(here, tmp_path, monkeypatch):
    """A run in another folder finds them there."""
    users = load_config('tiny_digits.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plain_config, 'checkout', lambda: here)
    publish(here / 'run', 'out')
    ours = load_config('out/tiny_digits.py')
    for stage in ('train', 'val', 'test'):
        roots = [{leaf.data_root for leaf in leaves(cfg[f'{stage}_dataloader'])} for cfg in (ours, users)]
        assert roots[0] == roots[1]
    assert str(here) not in Path('out/README.md').read_text() + Path('out/tiny_digits.py').read_text()


def test_the_card_has_what_the_hub_reads(here, published):
    cards = pytest.importorskip('huggingface_hub')
    card = cards.ModelCard.load(published / 'README.md')
    report = json.loads((published / 'metrics.json').read_text())
    (result,) = card.data.eval_results
    assert card.data.license == 'apache-2.0' and card.data.pipeline_tag == 'image-classification'
    assert result.metric_value == report['published']['scores']['accuracy/top1']
    for text in (
        '2,764,708 parameters',
        '79.58',
        'AdamW, lr 0.002',
        'mogacore train tiny_digits.py',
        '64 samples',
        'moving average',
    ):
        assert text in card.text, text


def test_an_average_has_the_mean_of_the_weights(here):
    main(['run', 'averaged', '--average', '2', '--format', 'safetensors', '--license', 'mit', '--device', 'cpu'])
    paths = newest_checkpoints(here / 'run', 2)
    assert [path.name for path in paths] == ['epoch_2.pth', 'epoch_3.pth']
    found, (first, second) = load(weight_file(here / 'averaged')), map(load, paths)
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    for name, value in found.items():
        if not name.endswith(statistics):
            torch.testing.assert_close(value, (first[name] + second[name]) / 2)
    changed = [name for name in found if name.endswith('running_var') and not torch.equal(found[name], second[name])]
    assert len(changed) == len([name for name in found if name.endswith('running_var')])
    report = json.loads((here / 'averaged' / 'metrics.json').read_text())
    assert report['published'] == dict(epoch=None, scores={})
    card = (here / 'averaged' / 'README.md').read_text()
    assert 'the mean of epoch_2.pth, epoch_3.pth' in card and 'have not been measured' in card
    header = yaml.safe_load(card.split('---')[1])
    assert header['license'] == 'mit' and 'model-index' not in header
    run_test(
        'averaged/tiny_digits_average.py', str(weight_file(here / 'averaged')), work_dir='tested',
        cfg_options=dict(experiment_name='publish_average'),
    )  # fmt: skip


def test_a_checkpoint_is_chosen_by_name_or_path(here):
    last = publish('run', 'last', checkpoint='last')
    assert last.sources[0].name == 'epoch_3.pth' and last.position == 3
    first = publish('run', 'first', checkpoint='run/epoch_1.pth')
    assert first.position == 1 and first.scores != {}


def test_a_resumed_run_names_the_weights_that_its_first_run_started_from(here, tmp_path):
    shutil.copytree('run', tmp_path / 'run')
    (first,) = (tmp_path / 'run').glob('*/vis_data/config.py')
    text = first.read_text()
    first.write_text(text.replace('load_from = None', "load_from = 'start.pth'"))
    later = tmp_path / 'run' / '29990101_000000' / 'vis_data' / 'config.py'
    later.parent.mkdir(parents=True)
    later.write_text(
        text.replace('load_from = None', "load_from = 'epoch_2.pth'").replace('resume = False', 'resume = True')
    )
    cfg = find_config(tmp_path / 'run')[1]
    assert cfg.load_from == 'start.pth' and 'resume' not in cfg


def test_a_config_written_by_a_test_is_not_taken(here, tmp_path):
    """A test in the same work dir writes its config there, without the parts of the training."""
    shutil.copytree('run', tmp_path / 'run')
    later = tmp_path / 'run' / '29990101_000000' / 'vis_data' / 'config.py'
    later.parent.mkdir(parents=True)
    later.write_text("model = dict(type='Other')\n")
    assert publish(tmp_path / 'run', tmp_path / 'out').cfg.model.type == 'ImageClassifier'


@pytest.mark.parametrize('name, message', [
    ('missing', 'has no config of a training'), ('two best', 'has 2 best checkpoints'),
    ('broken', 'is not a complete file|truncated|damaged|cannot be read'), ('nan', 'cannot be published, since .* nan'),
])  # fmt: skip
def test_nothing_is_written_if_something_is_wrong(name, message, here, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree('run', run)
    source = best(tmp_path)
    if name == 'missing':
        run = tmp_path / 'nothing'
    elif name == 'two best':
        shutil.copy(source, run / 'best_other_epoch_1.pth')
    elif name == 'broken':
        source.write_bytes(source.read_bytes()[:5000])
    else:
        container = read(source)
        next(iter(container['state_dict'].values())).fill_(float('nan'))
        torch.save(dict(state_dict=container['state_dict']), source)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        publish(run, tmp_path / 'out')
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_with_files_is_not_overwritten(here, published):
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    with pytest.raises(UserError, match='published already exists: remove it'):
        publish('run', 'published')
    assert {path.name: path.read_bytes() for path in published.iterdir()} == before


def test_more_checkpoints_than_there_are_cannot_be_averaged(here, tmp_path):
    with pytest.raises(UserError, match='has 3 checkpoints; give at least 2'):
        publish('run', tmp_path / 'out', averaged=4)
    for number in (0, 1):
        with pytest.raises(UserError, match=f'--average {number} is not an average: give at least 2'):
            publish('run', tmp_path / 'out', averaged=number)
    assert not (tmp_path / 'out').exists()


POSES = f"""
_base_ = '{ROOT}/configs/pose/td-hm_moganet-xtiny_digits.py'
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=1)
param_scheduler = None
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=2))
"""


def test_a_pose_model_has_the_scores_of_its_task(tmp_path, monkeypatch):
    pytest.importorskip('mmpose')
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / 'data' / 'digits', ('scenes',), num_train_scenes=3, num_val_scenes=2)
    (tmp_path / 'poses.py').write_text(POSES)
    settings = {'model.backbone.arch': dict(_delete_=True, **TINY_ARCH), 'model.head.deconv_out_channels': (8, 8, 8)}
    settings['model.head.in_channels'] = TINY_ARCH['embed_dims'][-1]
    train('poses.py', work_dir='run', cfg_options=settings)
    item = publish('run', 'out')
    assert {'coco/AP', 'coco/AP .5', 'coco/AR'} <= item.scores.keys() == item.best.keys()
    header, _, text = (tmp_path / 'out/README.md').read_text().removeprefix('---').partition('\n---')
    header = yaml.safe_load(header)
    assert header['pipeline_tag'] == 'keypoint-detection'
    (result,) = header['model-index'][0]['results']
    assert {entry['name']: entry['value'] for entry in result['metrics']} == pytest.approx(item.scores)
    assert re.search(r'^\| coco/AP \| \S+ \| \S+ \(epoch [12]\) \|$', text, re.MULTILINE)
    measured = run_test('out/poses.py', f'out/{item.file}', work_dir='test')
    assert -1 in measured.values()  # what COCO reports of sizes that do not occur
    assert {name: value for name, value in measured.items() if value != -1} == pytest.approx(item.scores, abs=1e-6)
    average = publish('run', 'averaged', averaged=2, file_format='safetensors')
    assert not average.scores and 'have not been measured' in (tmp_path / 'averaged/README.md').read_text()
    assert run_test('averaged/poses_average.py', f'averaged/{average.file}', work_dir='test').keys() == measured.keys()


# Config of each dense task: options of a run of two epochs or iterations, and the format of the weights.
DENSE = {
    'detection/retinanet_moganet-xtiny_fpn_digits': (
        {'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.max_keep_ckpts': 2,
         # Recipes for COCO have a batch sampler, for which torch knows no batch size.
         'train_dataloader.batch_sampler': dict(type='AspectRatioBatchSampler')},
        'safetensors',
    ),
    'segmentation/semantic-fpn_moganet-xtiny_digits': (
        {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 1, 'default_hooks.checkpoint.interval': 1,
         'default_hooks.checkpoint.max_keep_ckpts': 2},
        'pth',
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', DENSE)
def test_an_average_of_a_dense_model_is_published_and_predicts(name, tmp_path, monkeypatch, capsys):
    for library in ('mmdet', 'mmseg'):
        pytest.importorskip(library)
    settings, file_format = DENSE[name]
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / 'data' / 'digits', ('scenes',), num_train_scenes=4, num_val_scenes=2)
    backbone = f'backbone=dict(arch={dict(TINY_ARCH, _delete_=True)})'
    Path('dense.py').write_text(f"_base_ = '{ROOT}/configs/{name}.py'\nmodel = dict({backbone}, {CHANGES[name]})\n")
    loaders = {f'{stage}_dataloader.num_workers': 0 for stage in ('train', 'val', 'test')}
    loaders |= {f'{stage}_dataloader.persistent_workers': False for stage in ('train', 'val', 'test')}
    train('dense.py', work_dir='run', cfg_options={**loaders, **settings, 'param_scheduler': None})
    capsys.readouterr()
    main(['run', 'out', '--average', '2', '--device', 'cpu', '--format', file_format])
    path = weight_file(tmp_path / 'out')
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown == f'out: {path.name}, dense_average.py, metrics.json, README.md; scores: not measured'
    paths = newest_checkpoints(tmp_path / 'run', 2)
    found, (first, second) = load(path), map(load, paths)
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    averaged = [key for key in found if not key.endswith(statistics)]
    saved = read(path)['meta']['dataset_meta']['classes']
    assert [name for name in saved if name != 'background'] == list('0123456789')
    assert any(not torch.equal(first[key], second[key]) for key in averaged)
    for key in averaged:
        torch.testing.assert_close(found[key], (first[key] + second[key]) / 2)
    variances = [key for key in found if key.endswith('running_var')]
    assert variances and not any(torch.equal(found[key], second[key]) for key in variances)
    assert json.loads(Path('out/metrics.json').read_text())['checkpoints'] == [path.name for path in paths]
    image = min(Path('data/digits/scenes/val').iterdir())
    (record,) = infer('out/dense_average.py', str(path), image, 'predictions', device='cpu')
    assert record['image'] == str(image) and Path('predictions/predictions.png').is_file()
