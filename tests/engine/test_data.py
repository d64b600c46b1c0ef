"""The data of a run is labelled and checked alike in training, tests and dry runs."""

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from PIL import Image

from mogacore.engine.runner import dry_run, train
from mogacore.engine.runner import test as run_test
from mogacore.errors import UserError

pytest.importorskip('mmpretrain')

CLASSES = 'abc'


@MODELS.register_module()
class GrayValueClassifier(BaseModel):
    """Predicts label n for an image of gray value 50 n, which is always right on the images of this file."""

    def __init__(self, head=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        labels = [round(image.float().mean().item() / 50) for image in inputs]
        if mode == 'loss':
            return dict(loss=self.weight * 1.0)
        for sample, label in zip(data_samples, labels, strict=True):
            sample.set_pred_label(label).set_pred_score(torch.eye(len(CLASSES))[label])
        return data_samples


CONFIG = """
custom_imports = dict(imports=['mogacore.registry'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = dict(type='mmengine.GrayValueClassifier', head=dict(num_classes=3))
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
def loader(split):
    return dict(
        batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
        dataset=dict(type='CustomDataset', data_root=ROOT, data_prefix=split, pipeline=pipeline))
train_dataloader, val_dataloader, test_dataloader = loader('train'), loader('val'), loader('val')
del loader
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg, test_cfg = dict(), dict()
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.0))
log_level = 'ERROR'
"""


def write(root, split, name, count=2):
    folder = root / 'data' / split / name
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(np.full((4, 4, 3), 50 * CLASSES.index(name), np.uint8)).save(folder / f'{index}.png')


@pytest.fixture
def project(tmp_path):
    for name in CLASSES:
        write(tmp_path, 'train', name)
    for name in 'ac':
        write(tmp_path, 'val', name)
    (tmp_path / 'config.py').write_text(CONFIG.replace('ROOT', repr(str(tmp_path / 'data'))))
    torch.save(dict(state_dict=GrayValueClassifier().state_dict()), tmp_path / 'bare.pth')
    meta = dict(dataset_meta=dict(classes=tuple(CLASSES)))
    torch.save(dict(state_dict=GrayValueClassifier().state_dict(), meta=meta), tmp_path / 'named.pth')
    return tmp_path


def score(project, checkpoint='bare.pth', **options):
    options['experiment_name'] = f'{project.name}_{checkpoint}_{len(list(project.iterdir()))}'
    return run_test(
        str(project / 'config.py'), str(project / checkpoint), work_dir=str(project / 'test'), cfg_options=options
    )['accuracy/top1']


def lines(project, **options):
    """The lines of train, test and a dry run."""
    config, work_dir = str(project / 'config.py'), str(project / 'run')
    with pytest.raises(UserError) as trained:
        train(config, work_dir=work_dir, cfg_options=options)
    with pytest.raises(UserError) as tested:
        run_test(config, str(project / 'bare.pth'), work_dir=work_dir, cfg_options=options)
    with pytest.raises(UserError) as dry:
        dry_run(config, work_dir=work_dir, cfg_options=options)
    return [str(error.value) for error in (trained, tested, dry)]


def test_validation_data_without_a_class_keeps_the_labels(project):
    """A model that is always right scores 100, with the names of the training folders or of the checkpoint."""
    assert score(project) == 100
    (project / 'data/train').rename(project / 'away')
    assert score(project, 'named.pth') == 100
    with pytest.raises(UserError, match=r'val \(a, c\) has 2 classes, but the model has 3'):
        score(project)


def test_training_validates_with_the_same_labels_and_stores_the_names(project):
    runner = train(str(project / 'config.py'), work_dir=str(project / 'run'))
    assert runner.message_hub.get_scalar('val/accuracy/top1').current() == 100
    checkpoint = torch.load(project / 'run/epoch_1.pth', weights_only=False)
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == tuple(CLASSES)


def test_the_names_of_the_checkpoint_have_precedence(project):
    (project / 'data/train/aa').mkdir()
    assert score(project, 'named.pth') == 100


@pytest.mark.parametrize('fault, expected', [
    (lambda root: (root / 'data/val').rename(root / 'away'), '/data/val with the images not found'),
    (lambda root: (root / 'data/val/x').mkdir(), "val has the class folder 'x', but the model is trained with"),
    (lambda root: (root / 'data/val/a/1.png').write_bytes(b''), 'val/a/1.png is empty, truncated or not an image'),
    (lambda root: (root / 'data/train/d').mkdir(), 'has 4 classes, but the model has 3 (model.head.num_classes=3)'),
])  # fmt: skip
def test_the_same_fault_gives_the_same_line(project, fault, expected):
    fault(project)
    trained, tested, dry = lines(project)
    assert trained == dry and expected in tested and expected in trained


def test_class_count_of_other_data_sets_is_compared(project):
    options = {f'{name}_dataloader.dataset.type': 'mmpretrain.CIFAR100' for name in ('train', 'val', 'test')}
    options |= {f'{name}_dataloader.dataset.split': 'test' for name in ('train', 'val', 'test')}
    for line in lines(project, **options):
        assert 'has 100 classes, but the model has 3' in line


def test_all_files_are_read_on_demand(project, monkeypatch):
    monkeypatch.setattr('mogacore.engine.data.SECONDS', {'sample': 0, 'full': float('inf')})
    monkeypatch.setattr('mogacore.datasets.checks.report.MIN_SAMPLE', 1)
    (project / 'data/train/b/1.png').write_bytes(b'')
    config, work_dir = str(project / 'config.py'), str(project / 'run')
    assert 'the data exists' in dry_run(config, work_dir=work_dir)
    with pytest.raises(UserError, match=r'train/b/1\.png is empty'):
        dry_run(config, work_dir=work_dir, check='full')
