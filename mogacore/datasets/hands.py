"""Synthetic hands in the file formats of FreiHAND and InterHand2.6M, to train 3D hand pose without a download.

    freihand/training/rgb/NNNNNNNN.jpg, evaluation/rgb/...      one right hand, 128 x 128
    freihand/{training,evaluation}_{K,xyz,scale}.json           3 x 3 camera, 21 x 3 joints in meters, scale in meters
    interhand2.6m/images/{train,val,test}/Capture0/...          a right hand, a left hand or both, 128 x 128
    interhand2.6m/annotations/{all,machine_annot}/InterHand2.6M_{split}_{data,camera,joint_3d}.json

A hand is a kinematic chain of 21 joints: a rigid palm and five fingers of three bones each. Its size, its orientation
and the directions and flexion of the fingers are random. A pinhole camera, whose parameters are in the files, renders
the bones as capsules with a single light. It views the back of the hand, at most at an angle, but never the palm:
without nails and creases, the two sides would look almost the same. Each finger has a different tint, so that a small
network learns to distinguish them within minutes.

The seed determines all output.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mogacore.errors import UserError
from mogacore.files import write_jpeg, write_json

from .digits import write_part

PARTS = ('freihand', 'interhand2.6m')
VERSION = 1  # increase it when the same parameters produce different images
NUM_JOINTS = 21
# FreiHAND's order: wrist, then thumb, index, middle, ring and pinky from base to tip.
PARENTS = (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)
FINGERS = ('thumb', 'index', 'middle', 'ring', 'pinky')
# The same joints in InterHand2.6M's order: thumb to pinky from tip to base, then the wrist.
TO_INTERHAND = (4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17, 0)

# A right hand of adult size, seen from the back with the fingers up: in mm, x to the right, y down, z away from the
# viewer, origin at the wrist.
BASES = np.array([(-24, -24, 9), (-25, -88, 0), (-3, -92, -2), (17, -86, 0), (34, -76, 4)], np.float64)
BONES = np.array([(42, 32, 27), (43, 26, 22), (48, 30, 24), (44, 28, 24), (34, 21, 20)], np.float64)
FAN = np.radians([-46.0, -7.0, 0.0, 7.0, 15.0])  # direction of each finger in the plane of the palm, 0 is up
HAND_LENGTH = 194.0  # wrist to the tip of the straight middle finger, mm
RADII = np.array([(12, 10, 9, 8), (10, 9, 8, 7), (10, 9, 8, 7), (10, 9, 8, 7), (9, 8, 7, 6)], np.float64)

SKIN = np.array([225.0, 175.0, 150.0])
TINTS = np.array([(235, 90, 80), (230, 200, 70), (90, 200, 100), (80, 170, 235), (190, 110, 230)], np.float64)

JPEG_QUALITY = 92
CANVAS = 128
MARGIN = 6  # pixels between the joints and the border of the image


def write_hands(
    root: str | Path, parts: tuple[str, ...] = PARTS, num_train: int = 2500, num_test: int = 200, seed: int = 0
) -> dict[str, dict[str, int]]:
    """Write the synthetic hands; keep parts that already exist with the same parameters.

    Args:
        root: Folder for the parts, one subfolder each; created if missing.
        parts: Any of ``PARTS``.
        num_train: Number of training images of each part, at least 1.
        num_test: Number of images of each held-out split, at least 1.
        seed: Random seed, at least 0.

    Returns:
        Counts of the written items by name, for each part.

    Raises:
        UserError: If an argument is out of range, or the path of a part is occupied by other content.
    """
    root = Path(root)
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f'part {unknown[0]!r} is unknown: choose from {", ".join(PARTS)}')
    for name, count, least in (('num_train', num_train, 1), ('num_test', num_test, 1), ('seed', seed, 0)):
        if count < least:
            raise UserError(f'{name} is {count}: use {least} or more')
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot create folder {root} ({error.strerror}): choose another root') from error
    writers = {'freihand': _write_freihand, 'interhand2.6m': _write_interhand}
    parameters = {'num_train': num_train, 'num_test': num_test, 'seed': seed}
    return {part: write_part(root / part, writers[part], parameters, kind='hands', version=VERSION) for part in parts}


def pose_hand(rng: np.random.Generator, is_left: bool = False) -> tuple[np.ndarray, float]:
    """A hand of random size, pose and orientation.

    Args:
        rng: Random number generator.
        is_left: Generate a left hand, the mirror image.

    Returns:
        Joints in FreiHAND's order, (21, 3) float64, in mm relative to the wrist, with the axes of ``BASES``; and the
        size relative to the mean.
    """
    joints = np.zeros((NUM_JOINTS, 3))
    grasp = rng.uniform(0, 1)  # common flexion of all fingers
    for finger, (base, bones, fan) in enumerate(zip(BASES, BONES * rng.normal(1, 0.03, BONES.shape), FAN, strict=True)):
        angle = fan + np.radians(rng.uniform(-8, 8))
        if finger == 0:  # the thumb bends toward both the palm and the other fingers
            along = np.array([np.sin(angle), -np.cos(angle), rng.uniform(0, 0.5)])
            across = np.array([np.cos(angle), np.sin(angle), 0.8])
            bends = np.radians(rng.uniform((-10, 0, -5), (25, 45, 55)))
        else:
            along = np.array([np.sin(angle), -np.cos(angle), 0.0])
            across = np.array([0.0, 0.0, 1.0])
            bend = np.clip(grasp + rng.normal(0, 0.2, 2), 0, 1)
            bends = np.radians([-10 + 90 * bend[0], 95 * bend[1], 60 * bend[1]])
        along /= np.linalg.norm(along)
        across -= across @ along * along
        across /= np.linalg.norm(across)
        turns = np.cumsum(bends)[:, None]
        steps = bones[:, None] * (np.cos(turns) * along + np.sin(turns) * across)
        joints[1 + 4 * finger] = base
        joints[2 + 4 * finger : 5 + 4 * finger] = base + np.cumsum(steps, axis=0)
    size = rng.uniform(0.85, 1.15)
    if is_left:
        joints[:, 0] *= -1
    tilt_x, tilt_y = np.radians(rng.uniform(-40, 40, 2))
    spin = rng.uniform(-np.pi, np.pi)
    return size * joints @ _rotation(tilt_x, tilt_y, spin).T, size


def draw_hands(
    rng: np.random.Generator,
    hands: list[tuple[np.ndarray, float]],
    focal: np.ndarray,
    principal_point: np.ndarray,
    canvas: int = CANVAS,
) -> np.ndarray:
    """Draw hands as shaded capsules in front of a dark, mottled background.

    Args:
        rng: Random number generator for light, noise and background.
        hands: For each hand, joints in FreiHAND's order, (21, 3), in mm in camera coordinates, and the size relative
            to the mean.
        focal: Focal lengths (2,) in pixels.
        principal_point: (2,) in pixels; 0 is the center of the first pixel.
        canvas: Height and width of the image in pixels.

    Returns:
        (canvas, canvas, 3) uint8 RGB.
    """
    depth = np.full((canvas, canvas), np.inf, np.float32)
    image = _draw_background(rng, canvas)
    light = np.array([*rng.uniform(-0.6, 0.6, 2), -1.0])
    light /= np.linalg.norm(light)
    brightness = rng.uniform(0.65, 1.1)
    for joints, size in hands:
        pixels = joints[:, :2] / joints[:, 2:] * focal + principal_point
        scale = focal.mean() / joints[:, 2]  # pixels per mm at each joint
        for start, end, radii, tint in _capsules():
            ends = (start, end)
            points = np.concatenate([pixels[[*ends]], joints[[*ends], 2:]], axis=1)
            _draw_capsule(image, depth, points, size * radii, scale[[*ends]], light, brightness * tint)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def _capsules():
    """Two joints, their radii in mm, and the tint, for each bone of the fingers and the palm."""
    for finger, radii in enumerate(RADII):
        first = 1 + 4 * finger
        yield 0, first, np.array([13.0, radii[0]]), SKIN
        for bone in range(3):
            yield first + bone, first + bone + 1, radii[bone : bone + 2], TINTS[finger]
    for joint in (5, 9, 13):
        yield joint, joint + 4, np.array([10.0, 10.0]), SKIN
    yield 1, 5, np.array([11.0, 10.0]), SKIN


def _draw_capsule(image, depth, points, radii_mm, scale, light, color):
    """Draw the pixels that are nearest to the camera; ``points`` (2, 3): x, y in pixels and z in mm of both ends."""
    radii = radii_mm * scale
    low = np.floor((points[:, :2] - radii[:, None]).min(0)).astype(int).clip(0, len(image))
    high = np.ceil((points[:, :2] + radii[:, None]).max(0)).astype(int).clip(-1, len(image) - 1) + 1
    if (high <= low).any():
        return
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    grid = np.stack(np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1])), -1) - points[0, :2]
    axis = points[1, :2] - points[0, :2]
    fraction = (grid @ axis / max(axis @ axis, 1e-6)).clip(0, 1)  # along the bone
    offset = grid - fraction[..., None] * axis
    radius = radii[0] + fraction * (radii[1] - radii[0])
    height = np.sqrt(np.maximum(radius**2 - (offset**2).sum(-1), 0))
    mean_scale = scale.mean()
    z = points[0, 2] + fraction * (points[1, 2] - points[0, 2]) - height / mean_scale
    nearer = (height > 0) & (z < depth[window])
    lit = -height / radius * light[2] + (offset @ light[:2]) / radius  # the normal points toward the viewer
    depth[window][nearer] = z[nearer]
    image[window][nearer] = color * (0.35 + 0.65 * lit.clip(0)[nearer])[:, None]


def _draw_background(rng, canvas):
    """A mottled background of one color, (canvas, canvas, 3) float64."""
    patches = rng.uniform(10, 90, 3) + rng.normal(0, 12, (6, 6, 3))
    return cv2.resize(patches, (canvas, canvas), interpolation=cv2.INTER_CUBIC)


def _rotation(x, y, z):
    """Matrix of the rotation about the x axis, then the y axis, then the z axis, by angles in radians."""
    rotations = []
    for axis, angle in enumerate((x, y, z)):
        matrix, (i, j) = np.eye(3), [k for k in range(3) if k != axis]
        matrix[[i, j], [i, j]] = np.cos(angle)
        matrix[i, j], matrix[j, i] = (-np.sin(angle), np.sin(angle)) if axis != 1 else (np.sin(angle), -np.sin(angle))
        rotations.append(matrix)
    return rotations[2] @ rotations[1] @ rotations[0]


def _place(rng, hands):
    """Place hands side by side in front of a camera so that all joints are in the image.

    Args:
        rng: Random number generator.
        hands: Joints relative to the wrist, and size, of one or two hands.

    Returns:
        The hands in camera coordinates; focal lengths (2,) and principal point (2,) in pixels.
    """
    focal = np.full(2, rng.uniform(250, 320))
    principal_point = CANVAS / 2 + rng.uniform(-4, 4, 2)
    placed = []
    for number, (joints, size) in enumerate(hands):
        center = (joints.min(0) + joints.max(0)) / 2
        shift = (number - (len(hands) - 1) / 2) * HAND_LENGTH * 0.75
        placed.append((joints - center + [shift, rng.uniform(-10, 10), rng.uniform(-40, 40)], size))
    distance = rng.uniform(400, 500)
    while True:  # increase the distance until all joints fit
        moved = [(joints + np.array([0, 0, distance]), size) for joints, size in placed]
        pixels = np.concatenate([joints[:, :2] / joints[:, 2:] for joints, _ in moved]) * focal + principal_point
        if pixels.min() >= MARGIN and pixels.max() <= CANVAS - 1 - MARGIN:
            return moved, focal, principal_point
        distance *= 1.04


def _write_freihand(folder, num_train, num_test, seed):
    for stream, (split, count) in enumerate((('training', num_train), ('evaluation', num_test))):
        rng = np.random.default_rng([seed, stream])  # so that the size of one split does not affect the other
        cameras, joints_m, scales = [], [], []
        for number in range(count):
            hands, focal, principal_point = _place(rng, [pose_hand(rng)])
            image = draw_hands(rng, hands, focal, principal_point)
            write_jpeg(folder / split / 'rgb' / f'{number:08}.jpg', image, JPEG_QUALITY)
            ((joints, _),) = hands
            camera = np.diag([*focal, 1.0])
            camera[:2, 2] = principal_point
            cameras.append(camera.round(4).tolist())
            joints_m.append((joints / 1000).round(7).tolist())
            # FreiHAND's scale: the length of the middle finger's first bone.
            scales.append(round(float(np.linalg.norm(joints[10] - joints[9])) / 1000, 7))
        for name, content in (('K', cameras), ('xyz', joints_m), ('scale', scales)):
            write_json(folder / f'{split}_{name}.json', content, indent=None)
    return {'training images': num_train, 'evaluation images': num_test}


def _write_interhand(folder, num_train, num_test, seed):
    for stream, (split, count) in enumerate((('train', num_train), ('val', num_test), ('test', num_test))):
        rng = np.random.default_rng([seed, len(PARTS) + stream])
        images: list[dict] = []
        annotations: list[dict] = []
        frames: dict[str, dict] = {}
        cameras: dict[str, dict[str, list]] = {}
        for number in range(count):
            hand_type = ('right', 'left', 'interacting')[number % 3]
            sides = {'right': (False,), 'left': (True,), 'interacting': (False, True)}[hand_type]
            # Seen from the back, the right hand is on the right.
            hands, focal, principal_point = _place(rng, [pose_hand(rng, is_left) for is_left in reversed(sides)])
            image = draw_hands(rng, hands, focal, principal_point)
            camera, name = f'cam{number:06}', f'Capture0/ROM/cam{number:06}/image{number:06}.jpg'
            write_jpeg(folder / 'images' / split / name, image, JPEG_QUALITY)
            rotation, position = _rotation(*rng.uniform(-1, 1, 3)), rng.uniform(-500, 500, 3)
            world, valid = np.ones((2 * NUM_JOINTS, 3)), np.zeros((2 * NUM_JOINTS, 1), int)
            pixels = []
            for is_left, (joints, _) in zip(reversed(sides), hands, strict=True):
                part = np.s_[NUM_JOINTS * is_left : NUM_JOINTS * (is_left + 1)]
                world[part] = joints[list(TO_INTERHAND)] @ rotation + position  # camera = rotation (world - position)
                valid[part] = 1
                pixels.append(joints[:, :2] / joints[:, 2:] * focal + principal_point)
            low, high = np.concatenate(pixels).min(0) - MARGIN, np.concatenate(pixels).max(0) + MARGIN
            common = {'hand_type': hand_type, 'hand_type_valid': 1}
            images.append({
                'id': number, 'file_name': name, 'width': CANVAS, 'height': CANVAS, 'capture': 0, 'subject': 0,
                'seq_name': 'ROM', 'camera': camera, 'frame_idx': number,
            })  # fmt: skip
            annotations.append(
                {'id': number, 'image_id': number, 'bbox': [*low.round(2).tolist(), *(high - low).round(2).tolist()],
                 'joint_valid': valid.tolist(), **common}
            )  # fmt: skip
            frames[str(number)] = {
                'world_coord': world.round(4).tolist(), 'joint_valid': (valid > 0).tolist(), **common
            }  # fmt: skip
            for key, value in (
                ('campos', position), ('camrot', rotation), ('focal', focal), ('princpt', principal_point)
            ):  # fmt: skip
                cameras.setdefault(key, {})[camera] = value.round(7).tolist()
        contents = {
            'data': {'images': images, 'annotations': annotations},
            'camera': {'0': cameras},
            'joint_3d': {'0': frames},
        }
        for kind in ('all', 'machine_annot'):
            for name, content in contents.items():
                write_json(folder / 'annotations' / kind / f'InterHand2.6M_{split}_{name}.json', content, indent=None)
    return {'train images': num_train, 'val images': num_test, 'test images': num_test}
