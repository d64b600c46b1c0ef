"""Names of classes and keypoints in a weight file, compared with those of the data."""

import pytest
import torch
from mmengine.registry import DATASETS
from toy_runs import CONFIG, ToyLine, ToyNumbers, log, toy_run

from mogacore.engine.runner import test as run_test
from mogacore.errors import UserError

TEST_PART = 'test_dataloader, test_cfg, test_evaluator = val_dataloader, val_cfg, val_evaluator\n'


@DATASETS.register_module()
class ToyNamed(ToyNumbers):
    def __init__(self, **metainfo):
        super().__init__()
        self.metainfo = metainfo


def named(metainfo):
    """Lines of a config whose data has this metainfo."""
    return ''.join(
        f"{stage}_dataloader['dataset'] = dict(type='ToyNamed', **{metainfo})\n" for stage in ('train', 'val')
    )


def weights(folder, metainfo):
    path = folder / 'toy.pth'
    meta = {} if metainfo is None else dict(dataset_meta=metainfo)
    torch.save(dict(meta=meta, state_dict=ToyLine().state_dict()), path)
    return str(path)


def points(kind, *names):
    return dict(classes=(kind,), keypoint_id2name={number: names[number] for number in reversed(range(len(names)))})


CASES = [
    (dict(classes=('cat', 'dog')), dict(classes=('dog', 'cat')), (2, 2, 0, 'cat', 'dog')),
    (dict(classes=['cat', 'dog']), dict(classes=('cat', 'cow')), (1, 2, 1, 'dog', 'cow')),
    (points('hand', 'a', 'b'), points('hand', 'a', 'c'), (1, 2, 1, 'b', 'c')),
    (points('hand', 'a', 'b'), points('foot', 'a', 'b'), None),
    (dict(classes=['cat', 'dog']), dict(classes=('cat', 'dog')), None),
    (dict(classes=('cat', 'dog')), dict(), None),
    (dict(classes=('cat', 'dog')), dict(classes=('cat', 'cow', 'dog')), None),
    (None, dict(classes=('cat', 'cow')), None),
]


@pytest.mark.parametrize('saved, own, differing', CASES)
def test_other_names_are_refused_in_a_test_and_a_warning_in_training(saved, own, differing, tmp_path):
    file = weights(tmp_path, saved)
    config = tmp_path / 'test.py'
    config.write_text(CONFIG.replace("dict(type='RecordHook')", '') + named(own) + TEST_PART)
    settings = dict(work_dir=str(tmp_path / 'test'), cfg_options={'experiment_name': tmp_path.name})
    toy_run(tmp_path, 'run', config=named(own), load_from=file, train_cfg__max_epochs=3)
    if differing is None:
        assert run_test(str(config), file, **settings) == {'toy/score': 1.0}
        assert 'other names' not in log(tmp_path, 'run')
        return
    count, total, number, was, now = differing
    line = (
        f'{file} was trained with other names of classes or keypoints than the data has ({count} of {total} differ): '
        f"number {number} is '{was}' in the file and '{now}' in the data"
    )
    assert log(tmp_path, 'run').count(line) == 1
    with pytest.raises(UserError) as error:
        run_test(str(config), file, **settings)
    assert str(error.value).startswith(line) and 'load_allow_other_classes=True' in str(error.value)
    settings['cfg_options'] |= {'load_allow_other_classes': True, 'experiment_name': f'{tmp_path.name}_2'}
    assert run_test(str(config), file, **settings) == {'toy/score': 1.0}
