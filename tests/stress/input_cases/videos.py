"""Video files and folders of frames, through ``infer`` with the two detectors and a video predictor."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from mogacore.datasets import FrameFolders
from mogacore.inference.sequences import sequences_of_videos
from mogacore.runtime.videos import Video, find_videos

from .core import case
from .pictures import Detectors, black_png, check_box, draw, encoded

NUM_FRAMES = 6
Change = Callable[[Path], object]


def box_at(number: int) -> list[int]:
    """The rectangle of a frame moves by 2 px per frame."""
    return [8 + 2 * number, 16, 40 + 2 * number, 40]


def frame(number: int, size=(80, 48)) -> np.ndarray:
    """BGR."""
    return np.ascontiguousarray(draw(size, box_at(number))[..., ::-1])


def write(path: Path, codec: str = 'MJPG', count: int = NUM_FRAMES, size=(80, 48), fps: float = 10) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
    assert writer.isOpened()
    for number in range(count):
        writer.write(frame(number, size))
    writer.release()
    return path


def motion_jpeg(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """An AVI file whose frames have these sizes, while its header states the first."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack('<I', len(data)) + data + b'\0' * (len(data) % 2)

    width, height = sizes[0]
    count = len(sizes)
    pictures = [encoded(draw(size, box_at(number)), 'JPEG', quality=95) for number, size in enumerate(sizes)]
    main = struct.pack('<14I', 100_000, 1 << 20, 0, 0x10, count, 0, 1, 1 << 20, width, height, 0, 0, 0, 0)
    stream = b'vidsMJPG' + struct.pack(
        '<10I4H', 0, 0, 0, 100_000, 1_000_000, 0, count, 1 << 20, 0, 0, 0, 0, width, height
    )
    form = struct.pack('<IiiHH4sIiiII', 40, width, height, 1, 24, b'MJPG', width * height * 3, 0, 0, 0, 0)
    lists = chunk(b'LIST', b'strl' + chunk(b'strh', stream) + chunk(b'strf', form))
    head = chunk(b'LIST', b'hdrl' + chunk(b'avih', main) + lists)
    body, index, position = b'movi', b'', 4
    for data in pictures:
        part = chunk(b'00dc', data)
        body += part
        index += b'00dc' + struct.pack('<III', 0x10, position, len(data))
        position += len(part)
    path.write_bytes(chunk(b'RIFF', b'AVI ' + head + chunk(b'LIST', body) + chunk(b'idx1', index)))
    return path


def shown_at_first_size(path: Path, sizes: list[tuple[int, int]]) -> list[list[float]]:
    """Write a video of frames of these sizes; boxes of the rectangles where all are shown in the size of the first."""
    motion_jpeg(path, sizes)
    width, height = sizes[0]
    return [
        [value * (height / h if i % 2 else width / w) for i, value in enumerate(box_at(number))]
        for number, (w, h) in enumerate(sizes)
    ]


def video(
    name: str, refused: str | None = None, quick: bool = False, suffix: str = '.avi', entries=('infer', 'runtime')
):
    """Declare a case whose function writes a video and returns what is expected: the numbers of its frames."""

    def add(make: Callable[[Path], object]) -> None:
        for entry in entries:

            def run(root: Path, entry: str = entry) -> None:
                detectors = Detectors(root)
                (root / 'in').mkdir()
                path = root / 'in' / f'clip{suffix}'
                numbers = make(path)
                numbers = range(NUM_FRAMES) if numbers is None or isinstance(numbers, Path) else numbers
                predict = detectors.infer if entry == 'infer' else detectors.predictor().infer
                records = predict(next((root / 'in').iterdir()), 'out')
                assert [record['frame'] for record in records] == list(range(len(numbers)))
                for record, number in zip(records, numbers, strict=True):
                    check_box(record, box_at(number) if isinstance(number, int) else number, tolerance=3)
                drawn = Video(next(Path('out').glob('*.mp4')))
                assert sum(1 for _ in drawn) == len(numbers)

            case(f'videos: {entry}', name, refused, quick and entry == 'infer')(run)

    return add


UNREADABLE = r'^video .* cannot be read: replace it or use another'
video('AVI', quick=True)(write)
video('MP4', suffix='.mp4')(lambda path: write(path, 'mp4v'))
video('WebM', suffix='.webm')(lambda path: write(path, 'VP80'))
video('upper-case suffix', suffix='.AVI')(lambda path: write(path.with_suffix('.avi')).rename(path))
video('AVI named .mp4', suffix='.mp4')(lambda path: write(path.with_suffix('.avi')).rename(path))
video('one frame')(lambda path: write(path, count=1) and [0])
video('of odd size')(lambda path: write(path, size=(81, 47)))
video('1,000 frames per second')(lambda path: write(path, fps=1000))
video('a frame in ten seconds')(lambda path: write(path, fps=0.1))
video('a changing size', quick=True)(
    lambda path: shown_at_first_size(path, [(80, 48), (80, 48), (96, 64), (72, 56), (80, 48)])
)
video('larger frames than the first')(lambda path: shown_at_first_size(path, [(80, 48), (320, 240)]))
video('name of 250 characters')(lambda path: write(path).rename(path.with_name(f'{"n" * 246}.avi')))
video('name beyond ASCII')(lambda path: write(path).rename(path.with_name('ünï 画.avi')))
video('name that is not UTF-8')(lambda path: write(path).rename(path.with_name(os.fsdecode(b'caf\xe9.avi'))))
video('empty', UNREADABLE, quick=True)(lambda path: path.write_bytes(b''))
video('text', UNREADABLE)(lambda path: path.write_text('no video'))
video('a header only', UNREADABLE)(lambda path: path.write_bytes(write(path).read_bytes()[:300]))
video('no frames', UNREADABLE)(lambda path: write(path, count=0))
video('zeros', UNREADABLE, suffix='.mp4')(lambda path: path.write_bytes(bytes(10_000)))
video('an MP4 file without its end', UNREADABLE, suffix='.mp4')(
    lambda path: path.write_bytes(write(path, 'mp4v').read_bytes()[:-600])
)
video('a FIFO', 'does not exist')(lambda path: os.mkfifo(path))
video('a folder', 'contains no image or video')(lambda path: path.mkdir())
video('a link to itself', 'does not exist')(lambda path: path.symlink_to(path.name))


@case('videos: infer', 'truncated', quick=True)
def _(root):
    detectors = Detectors(root)
    whole = write(root / 'clip.avi', count=30).read_bytes()
    (root / 'clip.avi').write_bytes(whole[: len(whole) // 2])
    records = detectors.infer('clip.avi')
    report = json.loads(Path('out/predictions.json').read_text())
    (cut,) = report['truncated']
    assert cut == {'video': 'clip.avi', 'frames_expected': 30, 'frames_read': len(records)} and 5 < len(records) < 25
    for number, record in enumerate(records[:-1]):
        check_box(record, box_at(number), tolerance=3)


@case('videos: infer', 'good and bad ones in a folder')
def _(root):
    detectors = Detectors(root)
    (root / 'in').mkdir()
    write(root / 'in/good.avi')
    (root / 'in/bad.avi').write_bytes(b'')
    (root / 'in/photo.png').write_bytes(encoded(draw()))
    records = detectors.infer('in')
    assert len(records) == NUM_FRAMES + 1
    assert json.loads(Path('out/predictions.json').read_text())['unreadable'] == ['in/bad.avi']


# Sequences for a video predictor, of which frame n has the gray value 10 n


def predictor_config() -> Config:
    dataset = dict(type='FrameFolders')
    return Config(dict(input_shape=(2, 1, 16, 16), model=dict(num_targets=1), test_dataloader=dict(dataset=dataset)))


def write_frames(folder: Path, numbers=(0, 1, 2), name: str = 'frame{}.png', size=(16, 16)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / name.format(number)), np.full(size[::-1], 10 * number, np.uint8))


def frames(name: str, refused: str | None = None, quick: bool = False):
    """Declare a case that changes a folder of three frames, which a video predictor takes as one sequence."""

    def add(change: Callable[[Path], object]) -> None:
        def run(root: Path) -> None:
            write_frames(root / 'clip')
            change(root / 'clip')
            (item,) = sequences_of_videos(find_videos(root / 'clip'), predictor_config())
            frames = np.concatenate([item['inputs'], item['data_samples'].gt_frames])
            np.testing.assert_allclose(255 * frames.mean((1, 2, 3)), [0, 10, 20], atol=0.6)

        case('folders of frames', name, refused, quick)(run)

    return add


def grown(folder: Path) -> None:
    write_frames(folder, [1], size=(40, 20))


frames('three frames')(lambda folder: None)
frames('a frame of another size')(grown)


@frames('a frame as JPEG')
def _(folder):
    (folder / 'frame1.jpg').write_bytes(encoded(np.full((16, 16), 10, np.uint8), 'JPEG'))
    (folder / 'frame1.png').unlink()


frames('a frame with alpha')(lambda folder: (folder / 'frame1.png').write_bytes(
    encoded(np.dstack([np.full((16, 16, 3), 10, np.uint8), np.zeros((16, 16), np.uint8)]))))  # fmt: skip
frames('numbers from 998 to 1000')(lambda folder: [
    (folder / f'frame{number}.png').rename(folder / f'{998 + number}.png') for number in range(3)
])  # fmt: skip
frames('a hidden file and a note')(lambda folder: [(folder / name).write_bytes(b'x') for name in ('note.txt', '.x')])
frames('a gap', r'have the numbers 0 and 2')(lambda folder: (folder / 'frame1.png').unlink())
frames('a number twice', r'have the numbers 1 and 1')(lambda folder: write_frames(folder, [1], 'also{}.png'))
frames('no number', r'first\.png has no number in its name')(lambda folder: write_frames(folder, [1], 'first.png'))
frames('a number of 200 digits', r'have the numbers')(
    lambda folder: (folder / 'frame2.png').rename(folder / f'{"9" * 200}.png')
)
frames('an empty frame', r'frame .*frame1\.png cannot be read', quick=True)(
    lambda folder: (folder / 'frame1.png').write_bytes(b'')
)
frames('a frame of 20,000 x 20,000', 'has more than 200,000,000 pixels')(
    lambda folder: (folder / 'frame1.png').write_bytes(black_png(20_000, 20_000, 1))
)
frames('a FIFO for a frame', r'have the numbers 0 and 2')(
    lambda folder: [(folder / 'frame1.png').unlink(), os.mkfifo(folder / 'frame1.png')]
)
frames('one frame only', r'has 1 frames, but the network needs 2')(
    lambda folder: [(folder / f'frame{number}.png').unlink() for number in (1, 2)]
)
frames('no frames', 'contains no image or video')(lambda folder: [path.unlink() for path in folder.iterdir()])
frames('a folder that contains itself')(lambda folder: (folder / 'again').symlink_to('.'))


def clips(name: str, change: Callable[[Path], object], refused: str | None = None, quick: bool = False) -> None:
    """Declare a case of a clip of the data set FrameFolders."""

    def run(root: Path) -> None:
        write_frames(root / 'clip')
        change(root / 'clip')
        dataset = FrameFolders(str(root), (16, 16), 'grayscale', num_inputs=2, num_targets=1)
        values = [255 * float(part.mean()) for part in dataset[0]['inputs']]
        assert len(dataset) == 1
        np.testing.assert_allclose(values, [0, 10], atol=0.6)

    case('clips for training', name, refused, quick)(run)


for name, change, refused in (
    ('three frames', lambda folder: None, None),
    ('a frame of another size', grown, None),
    ('an empty frame', lambda folder: (folder / 'frame1.png').write_bytes(b''), r'frame1\.png is corrupt'),
    ('a truncated frame', lambda folder: (folder / 'frame1.png').write_bytes(
        (folder / 'frame1.png').read_bytes()[:40]), r'frame1\.png is corrupt'),
    ('a frame of 20,000 x 20,000', lambda folder: (folder / 'frame1.png').write_bytes(
        black_png(20_000, 20_000, 1)), 'has more than 200,000,000 pixels'),
    ('a gap', lambda folder: (folder / 'frame1.png').unlink(), 'has no clip of 3 consecutive frames'),
    ('a FIFO for a frame', lambda folder: [(folder / 'frame1.png').unlink(), os.mkfifo(folder / 'frame1.png')],
     r'has no clip of 3 consecutive frames|frame1\.png not found'),
    ('a folder that contains itself', lambda folder: (folder / 'again').symlink_to('.'), None),
):  # fmt: skip
    clips(name, change, refused)
