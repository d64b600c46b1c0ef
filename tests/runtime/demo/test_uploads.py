"""Results for uploads equal those of the predictor, and what is neither image nor video is reported."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('onnx')
from onnx_files import write_classifier
from runtime.serve.serving import encode, filled

from mogacore.errors import UserError
from mogacore.runtime import Predictor
from mogacore.runtime.demo.uploads import predict_upload

COLORS = {'red': (200, 0, 0), 'green': (0, 200, 0), 'blue': (0, 0, 200)}


def write_video(path, colors, height=49, width=67):
    """A video with one frame per color; the codec only roughly keeps it."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*'mp4v'), 10, (width, height))
    for color in colors:
        writer.write(filled(COLORS[color], height, width)[..., ::-1])
    writer.release()
    return path


@pytest.fixture
def predictor(tmp_path):
    return Predictor(write_classifier(tmp_path / 'colors.onnx'), threads=1)


def test_image_gives_the_record_and_the_drawing_of_the_predictor(predictor, tmp_path):
    path = tmp_path / 'photo.png'
    path.write_bytes(encode(filled((1, 3, 2))))
    outcome = predict_upload(predictor, path, tmp_path, 10)
    (expected,) = predictor.predict([path])
    assert outcome.records == [{**expected.record, 'image': 'photo.png'}] and json.dumps(outcome.records)
    np.testing.assert_array_equal(outcome.drawn, expected.draw())
    assert outcome.video is None and outcome.time_ms > 0


def test_video_gives_a_record_and_a_drawing_per_frame(predictor, tmp_path):
    names = ['red', 'red', 'blue', 'green']
    folder = tmp_path / 'out'
    seen = []
    path = write_video(tmp_path / 'clip.mp4', names)
    outcome = predict_upload(predictor, path, folder, 10, lambda *counts: seen.append(counts))
    assert [record['pred_class'] for record in outcome.records] == names
    assert [record['frame'] for record in outcome.records] == [0, 1, 2, 3] and not outcome.is_cut
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    drawn = cv2.VideoCapture(str(outcome.video))
    frames = [drawn.read()[1] for _ in names]
    assert not drawn.read()[0] and outcome.video.parent == folder and outcome.video.suffix == '.webm'
    for frame, name in zip(frames, names, strict=True):
        color = frame[..., ::-1].reshape(-1, 3).mean(0)
        assert color.argmax() == list(COLORS).index(name), (name, color)


def test_long_video_is_cut(predictor, tmp_path):
    path = write_video(tmp_path / 'clip.mp4', ['red'] * 5)
    outcome = predict_upload(predictor, path, tmp_path, 3)
    assert len(outcome.records) == 3 and outcome.is_cut
    assert not predict_upload(predictor, path, tmp_path, 5).is_cut


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('notes.txt', b'hello', r'notes\.txt cannot be read: use an image, or a video \(\.avi'),
        ('photo.png', encode(filled((1, 2, 3), 90, 90))[:-30], r'photo\.png cannot be read'),
        ('empty.jpg', b'', r'empty\.jpg cannot be read'),
        ('clip.mp4', b'hello', r'video clip\.mp4 cannot be read: use another one'),
    ],
)
def test_files_that_are_no_complete_image_or_video_are_reported(predictor, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        predict_upload(predictor, tmp_path / name, tmp_path, 10)


def test_too_large_image_is_reported_with_the_limit(predictor, tmp_path, monkeypatch):
    monkeypatch.setenv('MOGACORE_MAX_PIXELS', '40')
    (tmp_path / 'photo.png').write_bytes(encode(filled((1, 2, 3))))
    with pytest.raises(UserError, match='of 6 x 8 px has more than 40 pixels'):
        predict_upload(predictor, tmp_path / 'photo.png', tmp_path, 10)


def test_a_broken_image_is_reported_by_its_name_whatever_the_name_says(predictor, tmp_path):
    (tmp_path / 'pixels.png').write_bytes(b'x')
    with pytest.raises(UserError, match=r'^pixels\.png cannot be read: use an image, or a video'):
        predict_upload(predictor, tmp_path / 'pixels.png', tmp_path, 10)
