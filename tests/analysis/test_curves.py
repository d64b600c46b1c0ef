import json
import runpy
import sys

import numpy as np
import pytest
from conftest import ROOT

from mogacore.analysis.curves import plot, read_curves, read_validations, smooth
from mogacore.errors import UserError


def write_log(work_dir, run, lines):
    folder = work_dir / run / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')


@pytest.fixture
def work_dir(tmp_path):
    """Two runs of one training: the second resumes at step 20."""
    folder = tmp_path / 'first'
    train = [dict(lr=0.1, loss=9.0 / step, time=1, epoch=1, iter=step, step=step) for step in (10, 20, 30)]
    write_log(folder, '20240101_000000', [*train, {'accuracy/top1': 50.0, 'data_time': 0.1, 'step': 1}])
    write_log(folder, '20240101_120000', [dict(train[1], loss=7.0), {'accuracy/top1': 60.0, 'step': 2}])
    return folder


def test_runs_of_a_training_are_joined_and_the_last_run_counts(work_dir):
    curves = read_curves(work_dir)
    steps, losses, _, unit = curves['loss']
    assert unit == 'iteration'
    assert steps.tolist() == [10, 20, 30]
    np.testing.assert_allclose(losses, [0.9, 7.0, 0.3])
    assert curves['accuracy/top1'][1].tolist() == [50, 60]
    assert {name for name, curve in curves.items() if curve.is_validation} == {'accuracy/top1'}
    assert curves['time'].steps.tolist() == [10, 20, 30] and 'data_time' not in curves


def test_validations_are_recognized_where_every_iteration_is_logged(tmp_path):
    """Their steps are then among those of the training."""
    train = [dict(lr=0.1, loss=1.0 / step, time=1, epoch=1, iter=step, step=step) for step in (1, 2, 3)]
    write_log(tmp_path / 'run', '20240101_000000', [*train, dict(mIoU=50.0, loss=7.0, time=9.0, step=3)])
    curves = read_curves(tmp_path / 'run')
    assert {name for name, curve in curves.items() if curve.is_validation} == {'mIoU', 'val/loss'}
    assert curves['loss'].values.tolist() == pytest.approx([1, 1 / 2, 1 / 3]) and set(curves['time'].values) == {1}
    shown = plot([('a', tmp_path / 'run')], tmp_path / 'c.png')
    assert shown['a'] == pytest.approx({'loss': 1 / 3, 'mIoU': 50, 'val/loss': 7})


@pytest.mark.parametrize('epochs, unit', [((1, 2), 'epoch'), ((None, None), 'iteration'), ((1, 1), 'iteration')])
def test_validations_are_counted_by_epoch_or_by_iteration(epochs, unit, tmp_path):
    """mmengine logs the epoch of training steps where it counts epochs; validations may count iterations anyway."""
    train = [
        dict(loss=1.0, iter=step, step=step) | (dict(epoch=epoch) if epoch else {})
        for step, epoch in zip((10, 20), epochs, strict=True)
    ]
    write_log(tmp_path / 'run', '20240101_000000', [*train, dict(mIoU=50.0, step=2 if unit == 'epoch' else 20)])
    assert read_curves(tmp_path / 'run')['mIoU'].unit == unit


def test_validations_are_read_by_step_also_where_training_steps_have_the_same_numbers(work_dir):
    train = [dict(lr=0.1, loss=1.0, epoch=1, iter=step, step=step) for step in (1, 2)]
    lines = [*train, {'accuracy/top1': 70.0, 'time': 0.1, 'step': 2}, {'accuracy/top1': 65.0, 'step': 3}]
    write_log(work_dir, '20240102_000000', lines)
    found = read_validations(work_dir)
    assert found == {1: {'accuracy/top1': 50.0}, 2: {'accuracy/top1': 70.0}, 3: {'accuracy/top1': 65.0}}


def test_scores_of_coco_without_objects_are_left_out(tmp_path):
    lines = [dict(loss=-1.0, epoch=1, iter=1, step=1), {'coco/AP': 0.5, 'coco/AP (L)': -1, 'other': -1, 'step': 1}]
    write_log(tmp_path / 'run', '20240102_000000', lines)
    assert read_validations(tmp_path / 'run') == {1: {'coco/AP': 0.5, 'other': -1}}
    assert set(read_curves(tmp_path / 'run')) == {'loss', 'coco/AP', 'other'}


def test_smoothing_keeps_a_constant_and_starts_at_the_first_value():
    np.testing.assert_allclose(smooth(np.full(5, 3.0), 0.9), 3)
    np.testing.assert_allclose(smooth(np.array([1.0, 2.0]), 0.5), [1, (0.25 * 1 + 0.5 * 2) / 0.75])


def test_several_trainings_in_one_figure(work_dir, tmp_path, monkeypatch, capsys):
    other = tmp_path / 'other'
    write_log(other, '20240102_000000', [dict(lr=0.1, loss=4.0, iter=10, step=10), {'accuracy/top1': 70.0, 'step': 1}])
    tool = str(ROOT / 'tools' / 'plots.py')
    monkeypatch.setattr(sys, 'argv', [tool, str(work_dir), f'x={other}', '--out', str(tmp_path / 'c.png')])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(tool, run_name='__main__')
    assert end.value.code in (0, None)
    printed = capsys.readouterr().out
    assert 'first: loss 0.3, accuracy/top1 60' in printed and 'x: loss 4, accuracy/top1 70' in printed
    assert (tmp_path / 'c.png').stat().st_size > 1000
    found = plot([('a', work_dir), ('b', other)], tmp_path / 'd.png', keys=['lr'], smoothing=0.5)
    assert found == {'a': {'lr': 0.1}, 'b': {'lr': 0.1}}


def test_user_errors_are_reported(work_dir, tmp_path):
    with pytest.raises(UserError, match=r'has no .*scalars\.json'):
        read_curves(tmp_path / 'none')
    with pytest.raises(UserError, match="scalar 'mAP' is not in the logs: choose from lr, loss"):
        plot([('a', work_dir)], tmp_path / 'c.png', keys=['mAP'])
    with pytest.raises(UserError, match='same label'):
        plot([('a', work_dir), ('a', work_dir)], tmp_path / 'c.png')
    with pytest.raises(UserError, match=r'smoothing 1\.0'):
        plot([('a', work_dir)], tmp_path / 'c.png', smoothing=1.0)
    for name, lines, reason in (
        ('new', [], 'nothing: wait'),
        ('lr', [dict(lr=0.1, iter=1, step=1)], 'only lr: name some'),
    ):
        write_log(tmp_path / name, 'run', lines)
        if not lines:
            (tmp_path / name / 'run' / 'vis_data' / 'scalars.json').write_text('')
        with pytest.raises(UserError, match=f'the logs of x have no loss and no validation, {reason}'):
            plot([('x', tmp_path / name)], tmp_path / 'c.png')
    (work_dir / '20240101_120000' / 'vis_data' / 'scalars.json').write_text('{"loss": 1}\nno json\n')
    with pytest.raises(UserError, match='line 1 of'):
        read_curves(work_dir)
