"""Bundled data: scikit-learn's 1,797 handwritten digits, written in the formats of the real data sets.

    classification/{train,val}/{0..9}/NNNN.png     class folders; NNNN is the digit's index in scikit-learn
    scenes/{train,val}/NNNN.png                    two to five colored digits on a textured background, RGB
    scenes/annotations/instances_{train,val}.json  COCO boxes and masks, category id = digit + 1
    scenes/annotations/keypoints_{train,val}.json  COCO keypoints: the five ``KEYPOINTS`` of every digit
    scenes/segmentation/{train,val}/NNNN.png       class of each pixel: 0 for background, digit + 1 for visible ink
    moving/mnist_test_seq.npy                      (20, N, 64, 64) uint8, two bouncing digits, frame axis first

Every fifth digit of each class is held out; val scenes and moving sequences show only held-out digits. In the
segmentation maps, background is a class like the other ten, so no pixel is ignored (``reduce_zero_label=False``).

The seed determines all output. Pixels are computed in integer arithmetic, so they are identical on every machine.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test set).
"""

import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mogacore.errors import UserError
from mogacore.files import write_json, write_png
from mogacore.runtime.rle import encode_rle

PARTS = ('classification', 'scenes', 'moving')
SPLITS = ('train', 'val')
CLASSES = tuple('0123456789')
KEYPOINTS = ('top', 'bottom', 'left', 'right', 'centroid')
SKELETON = ((1, 5), (2, 5), (3, 5), (4, 5))  # 1-based, as in COCO: a cross through the centroid

# Recorded in the marker file. Increase it when the same parameters produce different bytes.
VERSION = 1
PNG_COMPRESSION = 6

INK = 128  # minimum opacity of a pixel that belongs to a digit
MIN_VISIBLE = 0.95  # fraction of its ink that stays visible when later digits overlap it


def write_digits(
    root: str | Path,
    parts: tuple[str, ...] = PARTS,
    num_train_scenes: int = 2000,
    num_val_scenes: int = 100,
    num_sequences: int = 200,
    seed: int = 0,
) -> dict[str, dict[str, int]]:
    """Write the bundled data sets; keep parts that already exist with the same parameters.

    Each part is written to a temporary folder and then renamed, so an interrupted run leaves no partial data.

    Args:
        root: Folder for the parts, one subfolder each; created if missing.
        parts: Any of ``PARTS``.
        num_train_scenes: Number of training scenes, at least 1.
        num_val_scenes: Number of validation scenes, at least 1.
        num_sequences: Number of moving sequences, at least 1.
        seed: Seed of the scenes and sequences, at least 0. The split into train and val does not depend on it.

    Returns:
        Counts of the written items by name, for each part.

    Raises:
        UserError: If an argument is out of range, scikit-learn is not installed, or the path of a part is occupied
            by other content.
    """
    root = Path(root)
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f'part {unknown[0]!r} is unknown: choose from {", ".join(PARTS)}')
    counts = {
        'num_train_scenes': num_train_scenes,
        'num_val_scenes': num_val_scenes,
        'num_sequences': num_sequences,
    }
    for name, count in counts.items():
        if count < 1:
            raise UserError(f'{name} is {count}: use 1 or more, or remove the part from parts')
    if seed < 0:
        raise UserError(f'seed is {seed}: use 0 or more')

    jobs: dict[str, tuple[Callable[..., dict[str, int]], dict[str, int]]] = {
        'classification': (_write_classification, {}),
        'scenes': (_write_scenes, {'num_train': num_train_scenes, 'num_val': num_val_scenes, 'seed': seed}),
        'moving': (_write_moving, {'num_sequences': num_sequences, 'seed': seed}),
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot create folder {root} ({error.strerror}): choose another root') from error
    return {part: write_part(root / part, *jobs[part], kind='digits', version=VERSION) for part in parts}


def load_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The handwritten digits as scikit-learn ships them.

    Returns:
        images (1797, 8, 8) uint8, white ink on black, 0..255; labels (1797,) int, 0..9; held_out (1797,) bool,
        true for every fifth digit of a class in file order: 355 digits that are never used for training.

    Raises:
        UserError: If scikit-learn is not installed.
    """
    if find_spec('sklearn') is None:
        raise UserError('the digits are part of scikit-learn, which is not installed: run pip install scikit-learn')
    from sklearn.datasets import load_digits as load

    bunch = load()
    images = (bunch.images.astype(np.int32) * 255 + 8) // 16  # 0..16 to 0..255, rounded
    held_out = np.zeros(len(images), bool)
    for label in range(len(CLASSES)):
        held_out[np.flatnonzero(bunch.target == label)[4::5]] = True
    return images.astype(np.uint8), bunch.target, held_out


def glyph(digit: np.ndarray, size: int) -> np.ndarray:
    """Enlarge an 8x8 digit for pasting: opacity, (size, size) uint8, with a 10 % margin and sharp edges."""
    # Without the margin, strokes that touch the border of the 8x8 image would be cut off straight.
    smooth = _enlarge(np.pad(digit, 1), size).astype(np.int32)
    # Increase contrast around 96, the level at which thin strokes stay connected and loops stay open.
    return np.clip((smooth - 96) * 5 // 2 + INK, 0, 255).astype(np.uint8)


def draw_scene(
    rng: np.random.Generator, digits: np.ndarray, canvas: int = 128
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Paste two to five digits at random positions, later ones on top.

    The height of a digit is about 0.19 to 0.4 of the canvas. A digit is skipped if 30 random positions all leave less
    than ``MIN_VISIBLE`` of the ink of a digit below visible.

    Args:
        rng: Random number generator.
        digits: Digits to choose from, (K, 8, 8) uint8.
        canvas: Height and width of the scene in pixels.

    Returns:
        image (canvas, canvas, 3) uint8 RGB; instances (canvas, canvas) uint8, k at the visible ink of the k-th
        pasted digit (from 1), 0 elsewhere; and the index in ``digits`` of each pasted digit.
    """
    image = _draw_background(rng, canvas)
    instances = np.zeros((canvas, canvas), np.uint8)
    pasted: list[int] = []
    full_ink: list[int] = []
    for _ in range(rng.integers(2, 6)):
        index = int(rng.integers(len(digits)))
        size = int(rng.integers(canvas * 15 // 64, canvas // 2 + 1))
        opacity = glyph(digits[index], size)
        color = _draw_ink_color(rng)
        for _ in range(30):
            top, left = rng.integers(canvas - size + 1, size=2)
            window = np.s_[top : top + size, left : left + size]
            trial = instances.copy()
            trial[window][opacity >= INK] = len(pasted) + 1
            visible = np.bincount(trial.ravel(), minlength=len(pasted) + 2)[1:]
            if np.all(visible[:-1] >= MIN_VISIBLE * np.array(full_ink)):
                break
        else:
            continue
        instances = trial
        pasted.append(index)
        full_ink.append(visible[-1])
        alpha = opacity[..., None].astype(np.int32)
        image[window] = (image[window] * (255 - alpha) + color * alpha + 127) // 255
    return image, instances, pasted


def ink_keypoints(mask: np.ndarray) -> np.ndarray:
    """The five ``KEYPOINTS`` of a digit's ink.

    An extreme point is an ink pixel. Ties go to the middle pixel, from left to right or top to bottom (the earlier of
    the middle two if their number is even). The centroid is the mean of all ink pixels and need not be on the ink.

    Args:
        mask: Ink, (H, W) bool, at least one pixel.

    Returns:
        (5, 2) float64, x and y in pixels; the center of the first pixel is at 0.
    """
    ys, xs = np.nonzero(mask)  # row-major, so the pixels within a row and those within a column are both in order
    points = [(xs.mean(), ys.mean())]
    for extreme in (xs == xs.max(), xs == xs.min(), ys == ys.max(), ys == ys.min()):
        ties = np.flatnonzero(extreme)
        middle = ties[(len(ties) - 1) // 2]
        points.insert(0, (xs[middle], ys[middle]))
    return np.array(points, np.float64)


def moving_sequence(
    rng: np.random.Generator,
    digits: np.ndarray,
    num_frames: int = 20,
    canvas: int = 64,
    velocity_noise: float = 0.0,
    num_noisy: int = 0,
) -> np.ndarray:
    """Generate a Moving MNIST sequence: two digits that move at constant speed and bounce off the four sides.

    Args:
        rng: Random number generator; it draws start, direction and digit, in that order, for each of the two.
        digits: Digits to choose from, (K, S, S) uint8; S is 28 in the original data set.
        num_frames: Length of the sequence.
        canvas: Height and width of a frame in pixels, at least S.
        velocity_noise: Standard deviation of the noise on both components of the velocity, which is a unit vector. It
            is drawn separately for each of the first ``num_noisy`` frames.
        num_noisy: See ``velocity_noise``.

    Returns:
        (num_frames, canvas, canvas) uint8, 0..255; where the digits overlap, the brighter pixel wins.

    Raises:
        ValueError: If the digits are larger than the canvas.

    Source: the generator in the Moving MNIST loaders; before every frame, a digit moves by 0.1 of its range.
    """
    size = digits.shape[-1]
    if size > canvas:
        raise ValueError(f'digits of {size} px do not fit a canvas of {canvas} px: enlarge it or shrink the digits')
    frames = np.zeros((num_frames, canvas, canvas), np.uint8)
    for _ in range(2):
        position = rng.random(2).tolist()  # x, y of the corner, 0..1 of its range
        angle = rng.random() * 2 * math.pi
        step = [0.1 * math.cos(angle), 0.1 * math.sin(angle)]
        digit = digits[rng.integers(len(digits))]
        for index, frame in enumerate(frames):
            noise = 0.1 * rng.normal(0, velocity_noise, 2) if velocity_noise and index < num_noisy else (0.0, 0.0)
            for axis in range(2):
                position[axis] += step[axis] + noise[axis]
                if not 0 < position[axis] < 1:
                    position[axis] = min(max(position[axis], 0.0), 1.0)
                    step[axis] = -step[axis]
            left, top = (int((canvas - size) * coordinate) for coordinate in position)
            window = frame[top : top + size, left : left + size]
            np.maximum(window, digit, out=window)
    return frames


def write_part(
    folder: Path, write: Callable[..., dict[str, int]], parameters: dict, kind: str, version: int
) -> dict[str, int]:
    """Write a folder atomically with ``write(folder, **parameters)``.

    A folder that exists with the same parameters, as recorded in its marker file ``{kind}.json``, is kept.

    Args:
        folder: Folder of the part; its parent must exist.
        write: Writes the part and returns the counts of its items by name.
        parameters: Keyword arguments for ``write``.
        kind: Name of the content, for the marker file and the messages.
        version: Version of the output of ``write`` for given parameters, recorded in the marker file.

    Returns:
        Counts of the items by name.

    Raises:
        UserError: If the path is occupied by other content.
    """
    requested = {'version': version, **parameters}
    if folder.exists() or folder.is_symlink():
        marker = _read_marker(folder / f'{kind}.json')
        if not marker:
            raise UserError(f'{folder} exists but is not a complete set of {kind}: move it away or choose another root')
        if marker['parameters'] == requested:
            return marker['counts']
        difference = f'holds {kind} made with {marker["parameters"]}, not with {requested}'
        raise UserError(f'{folder} {difference}: move it away or choose another root')
    with TemporaryDirectory(prefix=f'.{folder.name}-', dir=folder.parent) as temporary:
        draft = Path(temporary) / folder.name
        draft.mkdir()
        counts = write(draft, **parameters)
        write_json(draft / f'{kind}.json', {'parameters': requested, 'counts': counts}, indent=None)
        draft.rename(folder)
    return counts


def _read_marker(path):
    """The marker of a complete part; {} if the file is missing or invalid."""
    try:
        marker = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) and {'parameters', 'counts'} <= marker.keys() else {}


def _write_classification(folder):
    images, labels, held_out = load_digits()
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        split = SPLITS[int(held_out[index])]
        write_png(folder / split / CLASSES[label] / f'{index:04}.png', _enlarge(image, 32), PNG_COMPRESSION)
    return {'train images': int((~held_out).sum()), 'val images': int(held_out.sum())}


def _write_scenes(folder, num_train, num_val, seed):
    images, labels, held_out = load_digits()
    counts: dict[str, int] = {}
    for stream, (split, num_scenes) in enumerate(zip(SPLITS, (num_train, num_val), strict=True)):
        sources = np.flatnonzero(held_out == (split == 'val'))
        rng = _make_rng(seed, stream)
        entries: list[dict] = []
        annotations: list[dict] = []
        for number in range(num_scenes):
            image, instances, pasted = draw_scene(rng, images[sources])
            classes = np.zeros_like(instances)
            name = f'{number:04}.png'
            height, width = instances.shape
            entries.append({'id': number + 1, 'file_name': name, 'height': height, 'width': width})
            for order, position in enumerate(pasted, start=1):
                source = int(sources[position])
                mask = instances == order
                category = int(labels[source]) + 1
                classes[mask] = category
                annotation = {'id': len(annotations) + 1, 'image_id': number + 1, 'category_id': category}
                annotations.append(annotation | _annotate(mask) | {'source_index': source})
            write_png(folder / split / name, image, PNG_COMPRESSION)
            write_png(folder / 'segmentation' / split / name, classes, PNG_COMPRESSION)
        _write_annotations(folder / 'annotations', split, entries, annotations)
        counts |= {f'{split} images': num_scenes, f'{split} digits': len(annotations)}
    return counts


def _annotate(mask):
    """COCO annotation fields of an instance, from its visible ink."""
    ys, xs = np.nonzero(mask)
    left, top = int(xs.min()), int(ys.min())
    return {
        'bbox': [left, top, int(xs.max()) - left + 1, int(ys.max()) - top + 1],
        'area': len(xs),
        'iscrowd': 0,
        'segmentation': encode_rle(mask),
        'num_keypoints': len(KEYPOINTS),
        # v = 2: labeled and visible
        'keypoints': [value for x, y in ink_keypoints(mask).round(2).tolist() for value in (x, y, 2)],
    }


def _write_annotations(folder, split, images, annotations):
    """Write the two COCO files of a split: ten digit classes, and a single digit class with keypoints."""
    info = {'description': f'mogacore digit scenes, {split}: source_index counts in sklearn.datasets.load_digits()'}
    folder.mkdir(exist_ok=True)
    classes = [{'id': i + 1, 'name': name, 'supercategory': 'digit'} for i, name in enumerate(CLASSES)]
    instances = [
        {key: value for key, value in annotation.items() if 'keypoints' not in key} for annotation in annotations
    ]
    write_json(
        folder / f'instances_{split}.json',
        {'info': info, 'images': images, 'annotations': instances, 'categories': classes},
        indent=None,
    )
    digit = {'id': 1, 'name': 'digit', 'supercategory': 'digit', 'keypoints': KEYPOINTS, 'skeleton': SKELETON}
    keypoints = [annotation | {'category_id': 1} for annotation in annotations]
    write_json(
        folder / f'keypoints_{split}.json',
        {'info': info, 'images': images, 'annotations': keypoints, 'categories': [digit]},
        indent=None,
    )


def _write_moving(folder, num_sequences, seed):
    images, _, held_out = load_digits()
    digits = np.stack([glyph(image, 28) for image in images[held_out]])
    rng = _make_rng(seed, len(SPLITS))
    sequences = np.stack([moving_sequence(rng, digits) for _ in range(num_sequences)], axis=1)
    np.save(folder / 'mnist_test_seq.npy', sequences)
    return {'sequences': num_sequences}


def _make_rng(seed, stream):
    # Separate streams, so the number of training scenes does not affect the val scenes.
    return np.random.Generator(np.random.PCG64([seed, stream]))


def _enlarge(image, size):
    """Bicubic interpolation of (n, n) or (n, n, C) uint8 to ``size`` pixels, clipped to 0..255.

    Equivalent to ``cv2.INTER_CUBIC``, but in integer arithmetic: OpenCV versions differ by one gray level in places.
    """
    length = len(image)
    centers = (np.arange(size) + 0.5) * length / size - 0.5
    d = np.abs(centers[:, None] - np.arange(-2, length + 2))  # two more pixels on each side replicate the edge
    # Keys' cubic kernel with a = -0.75
    near, far = ((1.25 * d - 2.25) * d) * d + 1, ((d - 5) * d + 8) * d * -0.75 + 3
    weights = np.rint(np.where(d <= 1, near, np.where(d < 2, far, 0)) * 2**14).astype(np.int64)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)][: image.ndim], mode='edge').astype(np.int64)
    rows = np.tensordot(weights, padded, 1)
    enlarged = np.einsum('xj,yj...->yx...', weights, rows)
    return np.clip((enlarged + 2**27) >> 28, 0, 255).astype(np.uint8)


def _draw_background(rng, canvas):
    """A dark background: one color with smooth variations and grain. (canvas, canvas, 3) uint8."""
    color = rng.integers(25, 110, size=3)
    brightness = rng.integers(-30, 31, size=(6, 6, 1))
    tint = rng.integers(-12, 13, size=(6, 6, 3))
    patches = np.clip(color + brightness + tint, 0, 255).astype(np.uint8)
    grain = rng.integers(-8, 9, size=(canvas, canvas, 1))
    return np.clip(_enlarge(patches, canvas) + grain, 0, 255).astype(np.uint8)


def _draw_ink_color(rng):
    """A light color, from pale to saturated. (3,) int."""
    return np.array([*rng.integers(185, 256, size=2), rng.integers(70, 256)])[rng.permutation(3)]
