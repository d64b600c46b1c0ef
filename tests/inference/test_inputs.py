"""Inputs from files and folders, and the boxes of the objects in them."""

import json
from pathlib import Path

import numpy as np
import pytest

import mogacore.registry  # noqa: F401, registers our classes
from mogacore.errors import UserError
from mogacore.inference.inputs import Boxes, find_inputs, output_names


def test_output_names_follow_the_structure_of_the_input_folder(tmp_path):
    for name in ('a/x.png', 'b/x.png', 'b/y.jpg', 'b/y.png', 'b/y.mp4', 'note.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = output_names(find_inputs(tmp_path), tmp_path)
    assert list(names.values()) == ['a/x', 'b/x', 'b/y.jpg', 'b/y', 'b/y.png']
    assert output_names([tmp_path / 'a' / 'x.png'], tmp_path / 'a' / 'x.png') == {tmp_path / 'a' / 'x.png': 'x'}


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
