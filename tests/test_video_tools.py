"""Training, testing and predicting with the small video configs at toy size."""

import json
import shutil

import cv2
import numpy as np
import pytest
from conftest import ROOT, write_idx
from PIL import Image
from test_tools import assert_one_line_error, tool

from mogacore.datasets import SequenceFile
from mogacore.datasets.digits import write_digits
from mogacore.engine.runner import test as run_test
from mogacore.engine.runner import train
from mogacore.errors import UserError
from mogacore.inference.predictor import infer

CONFIGS = {'digits': 'simvp_moganet_moving-digits.py', 'fashion': 'simvp_gsta_moving-fashion.py'}


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with a few sequences in data/ and one small config per data set."""
    folder = tmp_path_factory.mktemp('project')
    write_digits(folder / 'data' / 'digits', parts=('moving',), num_sequences=4)
    (folder / 'data' / 'fashion-mnist').mkdir()
    rng = np.random.default_rng(0)
    for split in ('train', 't10k'):
        path = folder / 'data' / 'fashion-mnist' / f'{split}-images-idx3-ubyte.gz'
        write_idx(path, rng.integers(0, 256, (9, 28, 28)))
    for name, config in CONFIGS.items():
        length = 'num_sequences=4' if name == 'fashion' else ''
        (folder / f'{name}.py').write_text(f"""
_base_ = '{ROOT / 'configs' / 'video_prediction' / config}'
model = dict(spatial_dims=4, temporal_dims=8, temporal_depth=2)
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, dataset=dict(num_sequences=8))
val_dataloader = dict(**loader, dataset=dict({length}))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
""")
    return folder


@pytest.fixture(scope='module')
def trained(project):
    """Config and checkpoint of a training of four steps on the digits."""
    train(str(project / 'digits.py'), work_dir=str(project / 'digits'), cfg_options=rooted(project))
    return str(project / 'digits.py'), str(project / 'digits' / 'epoch_1.pth')


def rooted(project, folder='data/digits/moving'):
    loaders = ('val', 'test') if 'digits' in folder else ('train', 'val', 'test')
    return {f'{name}_dataloader.dataset.data_root': str(project / folder) for name in loaders}


def test_training_cycles_rate_and_momentum(project, trained):
    scalars = [json.loads(line) for line in next((project / 'digits').glob('*/vis_data/scalars.json')).open()]
    rates = [line['lr'] for line in scalars if 'lr' in line]
    assert len(rates) == 4 and max(rates) > 20 * rates[0] / 25 and rates[-1] < rates[0] / 100
    assert any('video/mse' in line for line in scalars)
    assert list((project / 'digits').glob('best_video_mse*.pth'))


def test_testing_reports_the_metrics_of_repeating_the_last_frame(project, trained):
    metrics = run_test(*trained, work_dir=str(project / 'test'), out=str(project / 'metrics.json'),
                       show_dir=str(project / 'shown'), cfg_options=rooted(project))  # fmt: skip
    report = json.loads((project / 'metrics.json').read_text())['metrics']
    assert report == pytest.approx(metrics) and report['video/ssim'] <= 1
    sequences = np.load(project / 'data' / 'digits' / 'moving' / 'mnist_test_seq.npy') / 255
    expected = ((sequences[10:] - sequences[9]) ** 2).sum((2, 3)).mean()
    assert metrics['video/copy_last_mse'] == pytest.approx(expected, rel=1e-6)
    assert sorted(path.name for path in (project / 'shown').iterdir()) == [f'0000{i}.png' for i in range(4)]


def test_predictions_for_the_test_set_are_reported_and_drawn(project, trained, tmp_path):
    tool('infer.py', *trained, '--out-dir', tmp_path / 'out', '--num-sequences', '2', cwd=project)
    report = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    records = report['predictions']
    assert [record['sequence'] for record in records] == ['sequence 0', 'sequence 3']
    tested = run_test(*trained, work_dir=str(tmp_path / 'w'), cfg_options=rooted(project))
    several = tmp_path / 'several.py'
    several.write_text(f'_base_ = {str(trained[0])!r}\ntest_evaluator = (_base_.test_evaluator,)\n')
    options = dict(cfg_options=rooted(project), device='cpu', num_sequences=4)
    every = infer(several, trained[1], None, tmp_path / 'all', **options)
    assert len(every) == 4
    for name in ('video/mse', 'video/copy_last_mse', 'video/ssim'):
        assert np.mean([record['metrics'][name] for record in every]) == pytest.approx(tested[name], rel=1e-5)
    sequences = np.load(project / 'data' / 'digits' / 'moving' / 'mnist_test_seq.npy')
    for record, index in zip(records, (0, 3), strict=True):
        strip = cv2.imread(str(tmp_path / 'out' / record['drawn']))
        assert strip.shape == (4 * 66, 96 + 10 * 66, 3)
        for row, start in ((0, 0), (1, 10)):  # input and truth, their fourth frame
            frame = strip[row * 66 : row * 66 + 64, 96 + 3 * 66 : 96 + 3 * 66 + 64, 0]
            np.testing.assert_array_equal(frame, sequences[start + 3, index])
        shown, truth, difference = (strip[r * 66 : r * 66 + 64, 96 : 96 + 64, 0].astype(int) for r in (2, 1, 3))
        assert np.abs(np.abs(shown - truth) - difference).max() <= 1
        with Image.open(tmp_path / 'out' / record['animation']) as animation:
            assert animation.n_frames == 20
    assert cv2.imread(str(tmp_path / 'out' / 'predictions.png')).shape == (2 * 4 * 66 + 2, 96 + 10 * 66, 3)


def write_video(path, num_frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (80, 48))
    for number in range(num_frames):
        frame = np.zeros((48, 80, 3), np.uint8)
        cv2.circle(frame, (10 + 2 * number, 24), 6, (255, 255, 255), -1)
        writer.write(frame)
    writer.release()


def test_end_of_a_video_is_predicted_without_ground_truth(trained, tmp_path):
    write_video(tmp_path / 'clip.avi', 34)
    records = infer(*trained, tmp_path / 'clip.avi', tmp_path / 'out', device='cpu')
    assert [record['sequence'].rpartition(' ')[2] for record in records] == ['0', '20']
    assert records[0]['metrics']['video/mse'] > 0 and records[1]['metrics'] is None
    assert cv2.imread(str(tmp_path / 'out' / records[1]['drawn'])).shape[0] == 4 * 66  # four ground-truth frames exist
    assert records == json.loads((tmp_path / 'out' / 'predictions.json').read_text())['predictions']
    write_video(tmp_path / 'ten.avi', 10)
    (record,) = infer(*trained, tmp_path / 'ten.avi', tmp_path / 'ten', device='cpu')
    assert cv2.imread(str(tmp_path / 'ten' / record['drawn'])).shape[0] == 2 * 66  # input and prediction


def test_fashion_mnist_trains_and_tests_with_the_same_functions(project):
    options = rooted(project, 'data/fashion-mnist')
    train(str(project / 'fashion.py'), work_dir=str(project / 'fashion'), cfg_options=options)
    checkpoint = str(project / 'fashion' / 'epoch_1.pth')
    metrics = run_test(str(project / 'fashion.py'), checkpoint, str(project / 'fashion' / 'test'), cfg_options=options)
    assert metrics['video/mse'] > 0 and metrics['video/copy_last_mse'] > 0


def test_user_errors_are_reported(project, trained, tmp_path):
    write_video(tmp_path / 'short.avi', 4)
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((8, 8), np.uint8))
    for settings, message in (
        (dict(source=tmp_path / 'short.avi'), r'short\.avi has 4 frames, but the network needs 10'),
        (dict(source=tmp_path / 'image.png'), r'image\.png is not a video'),
        (dict(source=None, num_sequences=0), '--num-sequences is 0'),
        (dict(source=None, boxes='boxes.json'), '--boxes is not for video prediction: omit it'),
        (dict(source=None, box_class='1'), '--box-class 1 has no effect for video prediction: omit it'),
        (dict(source=None, score_thr=0.3), '--score-thr 0.3 has no effect for video prediction: omit it'),
        (dict(source=None, tile_overlap=0.5), '--tile-overlap 0.5 has no effect without --tile: omit it'),
        (dict(source=None, cfg_options={'test_dataloader.dataset.data_root': 'none'}), 'data folder none is missing'),
        (
            dict(source=tmp_path / 'short.avi', cfg_options={'test_dataloader.dataset.type': 'TaxiBJ'}),
            'this network does not predict images',
        ),
    ):
        with pytest.raises(UserError, match=message):
            infer(*trained, **{'out_dir': tmp_path / 'out', 'device': 'cpu', **settings})


@pytest.mark.parametrize('breakage, message', [('cut', r'mnist_test_seq\.npy is truncated'), ('none', 'not found')])
def test_broken_data_is_a_one_line_error(breakage, message, project, trained, tmp_path):
    shutil.copytree(project / 'data', tmp_path / 'data')
    config, checkpoint = trained
    shutil.copy(config, tmp_path / 'config.py')
    path = tmp_path / 'data' / 'digits' / 'moving' / 'mnist_test_seq.npy'
    content = path.read_bytes()
    path.unlink()
    if breakage == 'cut':
        path.write_bytes(content[:5000])
    done = tool('test.py', 'config.py', checkpoint, '--work-dir', 'w', cwd=tmp_path, check=False)
    assert_one_line_error(done, message)


def test_prediction_of_a_sequence_that_is_not_finite_is_a_one_line_error(trained, project, tmp_path, monkeypatch):
    monkeypatch.setattr(SequenceFile, 'read_frames', lambda self, record: np.full((20, 64, 64, 1), np.nan))
    with pytest.raises(UserError, match=r'inputs of sequence 0 in the data set SequenceFile \(.*\) contain nan'):
        infer(*trained, None, tmp_path / 'out', cfg_options=rooted(project), device='cpu')


def test_a_model_with_another_number_of_targets_is_refused_in_a_test(trained, project, tmp_path):
    options = {**rooted(project), 'model.num_targets': 1}
    with pytest.raises(
        UserError, match=r'num_targets of the data set is 10, but the model predicts 1 frames: set model.num_targets=10'
    ):
        run_test(*trained, work_dir=str(tmp_path / 'w'), cfg_options=options)
