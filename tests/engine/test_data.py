"""The data of a run is labelled and checked alike in training, tests and dry runs; see also the table of own data."""

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from own_data_makers import CLASSES, class_folders

from mogacore.datasets.checks import Expected
from mogacore.datasets.checks.common import check_channels
from mogacore.engine.config import leaf_datasets
from mogacore.engine.runner import dry_run
from mogacore.errors import UserError

pytest.importorskip('mmpretrain')


@pytest.fixture
def project(tmp_path):
    return class_folders(tmp_path)


def test_training_validates_with_the_labels_of_the_training_folders_and_stores_their_names(project):
    (project.data / 'val/b').rename(project.root / 'away')
    runner = project.call('train')
    assert runner.message_hub.get_scalar('val/accuracy/top1').current() == 100
    checkpoint = torch.load(runner.work_dir + '/epoch_1.pth', weights_only=False)
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == CLASSES


def test_the_names_of_the_checkpoint_have_precedence(project):
    """A further folder in front of the others would shift their labels."""
    (project.data / 'train/aa').mkdir()
    project.saved = dict(classes=CLASSES)
    assert project.call('test')['accuracy/top1'] == 100


def test_all_files_are_read_on_demand(project, monkeypatch):
    monkeypatch.setattr('mogacore.engine.data.SECONDS', {'sample': 0, 'full': float('inf')})
    monkeypatch.setattr('mogacore.datasets.checks.report.MIN_SAMPLE', 1)
    (project.data / 'train/b/1.png').write_bytes(b'')
    config, _, options = project.write_config()
    assert 'the data exists' in dry_run(config, **options)
    with pytest.raises(UserError, match=r'train/b/1\.png is empty'):
        dry_run(config, check='full', **options)


def test_every_config_agrees_with_itself():
    """All heads of a bundled config have one number of classes, that of its data, and the channels that it loads."""
    checked = 0
    for path in sorted((ROOT / 'configs').glob('*/*.py')):
        cfg = Config.fromfile(path)
        if 'model' not in cfg or 'train_dataloader' not in cfg:
            continue
        expected = Expected.of(cfg.model)
        counts = set(expected.num_classes.values())
        assert len(counts) <= 1, (path, expected.num_classes)
        for dataset in leaf_datasets(cfg, 'train'):
            check_channels(dataset, expected.in_channels)
            checked += 1
            if classes := (dataset.get('metainfo') or {}).get('classes'):
                assert counts == {len(classes)}, path
    assert checked > 50
