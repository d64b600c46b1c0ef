"""Target of the checks and readers of COCO files."""

from __future__ import annotations

import json

from fuzzing.files import folder
from fuzzing.harness import SCALARS, VALUES, Target, check_message, near
from hypothesis import strategies as st
from PIL import Image

from mogacore.datasets.checks import Expected, Sample, find_problems
from mogacore.datasets.coco_labels import CocoLabels
from mogacore.errors import UserError
from mogacore.runtime.inputs import Boxes

SIZE = (20, 16)
CLASSES = ('a', 'b')
KEYPOINTS = ('left', 'right')
KEYS = (
    'id', 'image_id', 'category_id', 'bbox', 'segmentation', 'area', 'iscrowd', 'ignore', 'keypoints', 'num_keypoints',
    'file_name', 'width', 'height', 'name', 'counts', 'size', 'images', 'annotations', 'categories', 'predictions',
)  # fmt: skip


def document() -> dict:
    """A valid COCO file with boxes, keypoints, and masks of each kind."""
    masks = (
        [[2, 2, 12, 2, 12, 10, 2, 10]],
        {'size': [16, 20], 'counts': [40, 10, 270]},
        {'size': [16, 20], 'counts': 'X1:f8'},
    )
    masks[2]['counts'] = _compressed([40, 10, 270])
    return {
        'images': [{'id': n, 'file_name': f'{n}.png', 'width': SIZE[0], 'height': SIZE[1]} for n in (1, 2)],
        'categories': [
            {'id': n, 'name': name, 'keypoints': list(KEYPOINTS)} for n, name in enumerate(CLASSES, 1)
        ],
        'annotations': [
            {
                'id': n, 'image_id': n % 2 + 1, 'category_id': n % 2 + 1, 'bbox': [2, 2, 10, 8], 'area': 80,
                'iscrowd': 0, 'segmentation': mask, 'keypoints': [3, 3, 2, 9.5, 8, 1], 'num_keypoints': 2,
            }
            for n, mask in enumerate(masks, 1)
        ],
    }  # fmt: skip


def _compressed(runs: list[int]) -> str:
    """Run lengths as COCO's tools write them, for up to three numbers."""
    text = ''
    for run in runs:
        while True:
            bits, run = run & 31, run >> 5
            is_last = run == (-1 if bits & 16 else 0)
            text += chr(bits + (0 if is_last else 32) + 48)
            if is_last:
                break
    return text


def check_files(case: tuple[str, str, bool, bool]) -> str:
    """Check a file as detection or pose data, and read it as labels and as boxes."""
    text, mode, with_mask, may_be_empty = case
    root = folder() / 'coco'
    if not root.is_dir():
        root.mkdir()
        for number in (1, 2):
            Image.new('L', SIZE).save(root / f'{number}.png')
    (root / 'file.json').write_text(text, encoding='utf-8')
    dataset: dict = {
        'type': 'CocoDataset', 'data_root': str(root), 'ann_file': 'file.json', 'data_prefix': {'img': ''},
        'pipeline': [{'type': 'LoadAnnotations', 'with_mask': with_mask}],
    }  # fmt: skip
    if mode == 'detection':
        dataset['metainfo'] = {'classes': CLASSES}
        expected = Expected({'model.head': 2}, may_be_empty=may_be_empty)
    else:
        dataset['metainfo'] = {'keypoint_info': {n: {'name': name} for n, name in enumerate(KEYPOINTS)}}
        dataset['data_mode'] = mode
        expected = Expected({}, len(KEYPOINTS), may_be_empty=may_be_empty)
    problems = find_problems(dataset, expected, Sample())
    for line in problems:
        check_message(line)
    outcomes = ['refused' if problems else 'accepted']
    for read in (
        lambda: len(CocoLabels('file.json', str(root), metainfo={'classes': CLASSES})),
        lambda: Boxes(root / 'file.json').of(root / '1.png'),
    ):
        try:
            read()
            outcomes.append('accepted')
        except UserError as error:
            check_message(str(error))
            outcomes.append('refused')
    return outcomes[0]


def _nested_text(levels: int) -> str:
    return '[' * levels + ']' * levels


def coco_target() -> Target:
    """COCO files near a valid one, and any text."""
    predictions = {'predictions': [{'image': '1.png', 'instances': [{'bbox': [1, 2, 3, 4], 'score': 0.5}]}]}
    documents = near([document(), document(), document(), predictions], KEYS, st.one_of(SCALARS, VALUES))
    texts = st.one_of(
        *[st.builds(json.dumps, documents)] * 8, st.builds(json.dumps, VALUES), st.text(max_size=20),
        st.builds(_nested_text, st.sampled_from((100, 100_000))),
    )  # fmt: skip
    cases = st.tuples(
        texts, st.sampled_from(('detection', 'topdown', 'bottomup')), st.booleans(), st.booleans()
    )  # fmt: skip
    valid = [
        (json.dumps(document()), mode, with_mask, False)
        for mode in ('detection', 'topdown', 'bottomup')
        for with_mask in (False, True)
    ]
    return Target(cases, check_files, valid)
