"""Inputs from files and folders, and the boxes of the objects in them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

import mogacore.registry  # noqa: F401, registers our classes
from mogacore.errors import UserError
from mogacore.inference.sequences import sequences_of_videos
from mogacore.runtime.inputs import Boxes, find_inputs, output_names
from mogacore.runtime.videos import find_videos


def test_output_names_follow_the_structure_of_the_input_folder(tmp_path):
    for name in ('a/x.png', 'b/x.png', 'b/y.jpg', 'b/y.png', 'b/y.mp4', 'note.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = output_names(find_inputs(tmp_path), tmp_path)
    assert list(names.values()) == ['a/x', 'b/x', 'b/y.jpg', 'b/y', 'b/y.png']
    assert output_names([tmp_path / 'a' / 'x.png'], tmp_path / 'a' / 'x.png') == {tmp_path / 'a' / 'x.png': 'x'}


def test_output_names_are_distinct(tmp_path):
    names = ('x.jpg', 'x.png', 'x.jpg.png', 'x.jpg.png.png', 'y.png')
    found = output_names([tmp_path / name for name in names], tmp_path)
    assert sorted(found.values()) == ['x.jpg', 'x.jpg.png', 'x.jpg.png.png', 'x.png', 'y']


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for name in ('a/x.png', 'a/y.jpg', 'b/x.png', 'b/clip.mp4', 'c/none.md', 'out/drawn/x.png', 'list.md', 'e.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'list.txt').write_text('b/clip.mp4\n\n a/*.png \nb\n')
    (tmp_path / 'wrong.txt').write_text('a/x.png\na/z.png\n')
    (tmp_path / 'nested.txt').write_text('list.txt\n')
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('source, expected, names', [
    ('a', ['a/x.png', 'a/y.jpg'], ['x', 'y']),
    ('*/x.png', ['a/x.png', 'b/x.png'], ['a/x', 'b/x']),
    ('**/*.png', ['a/x.png', 'b/x.png'], ['a/x', 'b/x']),
    ('a/*', ['a/x.png', 'a/y.jpg'], ['x', 'y']),
    ('?', ['a/x.png', 'a/y.jpg', 'b/clip.mp4', 'b/x.png'], ['a/x', 'a/y', 'b/clip', 'b/x']),
    (['b/x.png', 'a', 'a/x.png'], ['b/x.png', 'a/x.png', 'a/y.jpg'], ['b/x', 'a/x', 'a/y']),
    ('list.txt', ['b/clip.mp4', 'a/x.png', 'b/x.png'], ['b/clip', 'a/x', 'b/x']),
    ('a/x.png', ['a/x.png'], ['x']),
    ('.', ['a/x.png', 'a/y.jpg', 'b/clip.mp4', 'b/x.png'], ['a/x', 'a/y', 'b/clip', 'b/x']),
])  # fmt: skip
def test_files_folders_patterns_and_lists_are_inputs(source, expected, names, photos):
    found = find_inputs(source, 'out')
    assert [str(path) for path in found] == expected
    assert list(output_names(found, source).values()) == names


@pytest.mark.parametrize('source, message', [
    ('z.png', 'input z.png does not exist'),
    ('z/*.png', 'input z/*.png matches no file'),
    ('c/*', 'input c/* matches no image or video'),
    ('c', 'input c contains no image or video'),
    ('https://example.org/x.png', 'input https://example.org/x.png is a web address: download'),
    ('list.md', 'input list.md is no image or video: give a file with suffix .bmp'),
    ('e.txt', 'input e.txt is empty'),
    ('wrong.txt', 'input a/z.png of wrong.txt does not exist'),
    ('nested.txt', 'input list.txt of nested.txt is no image or video'),
    (['a/x.png', 'z.png'], 'input z.png does not exist'),
    ('out', '--out-dir out is the input folder'),
])  # fmt: skip
def test_an_input_that_holds_no_picture_is_described(source, message, photos):
    with pytest.raises(UserError) as error:
        find_inputs(source, 'out')
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)


def test_boxes_are_found_by_path_first_and_then_by_file_name(tmp_path, monkeypatch):
    (tmp_path / 'link.png').symlink_to('image.png')
    records = [{'image': name, 'instances': [{'bbox': [0, 0, i, i], 'score': 0.5}, {'bbox': [3, 3, 3, 9], 'score': 1}]}
               for i, name in enumerate(('a/x.png', 'b/x.png', 'link.png'), start=1)]  # fmt: skip
    (tmp_path / 'boxes.json').write_text(json.dumps({'predictions': records}))
    monkeypatch.chdir(tmp_path)
    boxes = Boxes('boxes.json')
    for path, size in (('b/x.png', 2), (tmp_path / 'a' / 'x.png', 1), ('link.png', 3), ('elsewhere/link.png', 3)):
        assert boxes.of(Path(path)).tolist() == [[0, 0, size, size, 0.5]]
    assert boxes.of(Path('other.png')).shape == boxes.of(Path('link.png'), frame=0).shape == (0, 5)


def test_boxes_can_be_restricted_to_one_class(tmp_path):
    people = [dict(bbox=[0, 0, 4, 4], score=0.9, **{'class': 'person'})]
    cars = [dict(bbox=[1, 1, 9, 9], score=0.8, **{'class': 'car'})]
    (tmp_path / 'predictions.json').write_text(
        json.dumps(dict(predictions=[dict(image=str(tmp_path / 'a.png'), instances=people + cars)]))
    )
    assert len(Boxes(tmp_path / 'predictions.json').of(tmp_path / 'a.png')) == 2
    boxes = Boxes(tmp_path / 'predictions.json', 'person').of(tmp_path / 'a.png')
    np.testing.assert_allclose(boxes, [[0, 0, 4, 4, 0.9]], rtol=1e-6)
    content = dict(
        images=[dict(id=1, file_name='a.png')],
        categories=[dict(id=1, name='person'), dict(id=2, name='car')],
        annotations=[dict(image_id=1, category_id=c, bbox=[c, c, 3, 3]) for c in (1, 2)],
    )
    (tmp_path / 'coco.json').write_text(json.dumps(content))
    np.testing.assert_allclose(Boxes(tmp_path / 'coco.json', 'car').of(tmp_path / 'a.png'), [[2, 2, 5, 5, 1]])
    with pytest.raises(UserError, match='no box of class dog for'):
        Boxes(tmp_path / 'coco.json', 'dog').check([tmp_path / 'a.png'])


def test_sequences_of_a_video_have_the_frame_step_and_channel_order_of_the_data_set(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'v.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (32, 32))
    for number in range(24):
        writer.write(np.full((32, 32, 3), (200, 100, 8 * number), np.uint8))  # blue, green, red
    writer.release()
    dataset = dict(type='FrameFolders', frame_step=3, channel_order='bgr')
    cfg = Config(dict(input_shape=(2, 3, 32, 32), model=dict(num_targets=1), test_dataloader=dict(dataset=dataset)))
    found = list(sequences_of_videos([tmp_path / 'v.avi'], cfg))
    # Every third of 24 frames makes 8: two whole sequences, and one without target.
    assert [item['data_samples'].name.rpartition(' ')[2] for item in found] == ['0', '9', '18']
    frames = np.concatenate([item['inputs'] for item in found]) * 255
    reds = [8 * number for number in (0, 3, 9, 12, 18, 21)]
    np.testing.assert_allclose(frames[:, 2].mean((1, 2)), reds, atol=4)
    np.testing.assert_allclose(frames[:, 0], 200, atol=4)


def video_config(num_inputs=2, num_targets=1, **dataset):
    dataset = dict(type='FrameFolders', **dataset)
    shape = (num_inputs, 1, 16, 16)
    return Config(dict(input_shape=shape, model=dict(num_targets=num_targets), test_dataloader=dict(dataset=dataset)))


def write_frames(folder, numbers, name='frame{}.png'):
    """Gray frames of 16 x 16 px whose brightness is 10 times their number."""
    folder.mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(folder / name.format(number)), np.full((16, 16), 10 * number, np.uint8))


def test_a_folder_of_numbered_frames_is_one_video_and_a_folder_of_folders_several(tmp_path):
    write_frames(tmp_path / 'a', range(8, 14))  # by name, frame10 comes before frame8
    write_frames(tmp_path / 'b' / 'c', range(3))
    cfg = video_config()
    assert find_videos(tmp_path / 'a') == [tmp_path / 'a']
    assert find_videos(tmp_path) == [tmp_path / 'a', tmp_path / 'b' / 'c']
    found = list(sequences_of_videos(find_videos(tmp_path), cfg))
    frames = [
        torch.cat([item['inputs'], item['data_samples'].gt_frames]).mean((1, 2, 3)).mul(25.5).round() for item in found
    ]
    assert [values.tolist() for values in frames] == [[8, 9, 10], [11, 12, 13], [0, 1, 2]]
    names = [item['data_samples'].name for item in found]
    assert names == [
        f'{tmp_path / "a"}, from frame 0',
        f'{tmp_path / "a"}, from frame 3',
        f'{tmp_path / "b" / "c"}, from frame 0',
    ]


def test_frames_with_gaps_without_numbers_or_damaged_are_refused(tmp_path):
    write_frames(tmp_path / 'gap', (1, 2, 5))
    write_frames(tmp_path / 'twice', (1, 2))
    write_frames(tmp_path / 'twice' / 'other', (1, 2))
    (tmp_path / 'twice' / 'also2.png').write_bytes((tmp_path / 'twice' / 'frame2.png').read_bytes())
    write_frames(tmp_path / 'named', (1,), 'first.png')
    write_frames(tmp_path / 'bad', (1, 2, 3))
    (tmp_path / 'bad' / 'frame2.png').write_bytes(b'')
    for folder, message in (
        ('gap', r'frames frame2\.png and frame5\.png of .*gap have the numbers 2 and 5: number'),
        ('twice', r'frames also2\.png and frame2\.png of .* have the numbers 2 and 2'),
        ('named', r'frame .*first\.png has no number in its name'),
        ('bad', r'frame .*frame2\.png cannot be read'),
    ):
        with pytest.raises(UserError, match=message):
            list(sequences_of_videos([tmp_path / folder], video_config()))
    with pytest.raises(UserError, match=r'frame1\.png is not a video .* the folder of its frames'):
        find_videos(tmp_path / 'gap' / 'frame1.png')


def test_the_end_of_a_truncated_video_is_reported_before_its_last_sequence(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'v.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 64))
    for number in range(24):
        writer.write(np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8))
    writer.release()
    content = (tmp_path / 'v.avi').read_bytes()
    (tmp_path / 'v.avi').write_bytes(content[: len(content) // 3])
    records = []
    cfg = video_config(num_inputs=6, num_targets=6)
    (item,) = sequences_of_videos([tmp_path / 'v.avi'], cfg, lambda video: records.append(video.truncation()))
    num_read = 6 + len(item['data_samples'].gt_frames)
    assert records == [{'video': str(tmp_path / 'v.avi'), 'frames_expected': 24, 'frames_read': num_read}]
    assert num_read < 12
