"""mogacore infer with an exported file in the place of config and checkpoint."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
from onnx_files import write_classifier

from mogacore.cli import infer
from mogacore.errors import UserError


def test_an_exported_file_needs_no_config(tmp_path, capsys):
    model = write_classifier(tmp_path / 'net.onnx')
    photo = tmp_path / 'photo.png'
    cv2.imwrite(str(photo), np.full((8, 8, 3), (0, 0, 255), np.uint8))  # red
    out = tmp_path / 'out'
    infer.main([str(model), str(photo), '--threads', '1', '--out-dir', str(out)])
    (record,) = json.loads((out / 'predictions.json').read_text())['predictions']
    assert record['pred_class'] == 'red'
    assert capsys.readouterr().out.endswith(f'1 predictions in {out}: predictions.json and drawings\n')


def test_the_value_of_an_option_is_no_exported_file(tmp_path):
    words = ['none.py', 'w.pth', 'photo.png', '--out-dir', str(tmp_path), '--cfg-options', 'a.b=boxes.xml']
    with pytest.raises(UserError, match=r'config none\.py not found'):
        infer.main(words)
