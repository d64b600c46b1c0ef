import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT, TINY_ARCH

import mogacore.registry  # noqa: F401, registers our classes
from mogacore.datasets.digits import write_digits
from mogacore.libraries import TASK_LIBRARIES
from mogacore.models import MogaNet


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('project')
    write_digits(folder / 'data' / 'digits', ('classification', 'scenes'), num_train_scenes=4, num_val_scenes=2)
    return folder


@pytest.mark.parametrize('library', ('mmengine', *TASK_LIBRARIES))
def test_every_library_builds_the_backbone_by_name(library):
    registry = pytest.importorskip(f'{library}.registry').MODELS
    backbone = registry.build(dict(type='MogaNet', arch='xtiny', out_indices=(0, 3)))
    assert type(backbone) is MogaNet
    assert registry.module_dict['MogaNet'] is MogaNet


# Our digits configs, each with the setting that depends on the backbone widths.
CONFIGS = {
    'mmpretrain': ('classification/moganet-xtiny_digits.py', 'head=dict(in_channels=32)'),
    'mmdet': ('detection/mask-rcnn_moganet-xtiny_fpn_digits.py', 'neck=dict(in_channels=[8, 16, 24, 32])'),
    'mmseg': ('segmentation/semantic-fpn_moganet-xtiny_digits.py', 'neck=dict(in_channels=[8, 16, 24, 32])'),
    'mmpose': ('pose/td-hm_moganet-xtiny_digits.py', 'head=dict(in_channels=32)'),
}


@pytest.mark.parametrize('library', TASK_LIBRARIES)
def test_train_script_of_each_library_trains_our_config(library, project):
    package = find_spec(library)
    if package is None:
        pytest.skip(f'{library} is not installed')
    script = Path(package.origin).parent / '.mim' / 'tools' / 'train.py'
    name, widths = CONFIGS[library]
    loop = 'max_iters=2, val_interval=2' if library == 'mmseg' else 'max_epochs=1'
    loader = 'batch_size=2, num_workers=0, persistent_workers=False'  # mmpretrain's script turns persistent workers on
    indices = 'dataset=dict(indices=4)' if library == 'mmpretrain' else 'indices=4'
    (project / f'{library}.py').write_text(f"""
_base_ = '{ROOT / 'configs' / name}'
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH})), {widths})
train_dataloader = dict({loader}, dataset=dict({indices}))
val_dataloader = dict({loader}, dataset=dict(indices=2))
train_cfg = dict({loop})
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval={2 if library == 'mmseg' else 1}))
""")
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', script, f'{library}.py', '--work-dir', library],
        cwd=project, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    scalars = next((project / library).glob('*/vis_data/*.json')).read_text().splitlines()
    assert any('loss' in json.loads(line) for line in scalars)
    assert (project / library / ('iter_2.pth' if library == 'mmseg' else 'epoch_1.pth')).is_file()


def test_package_imports_without_any_task_library():
    blocker = 'import sys; sys.modules.update(dict.fromkeys(("mmcv", "mmpretrain", "mmdet", "mmseg", "mmpose")))'
    code = f'{blocker}; import mogacore; print(mogacore.create_model("moganet_xtiny", 10).head.out_features)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == '10\n'
