"""The notebooks of docs/notebooks run from top to bottom with small settings and show what their texts promise."""

import json
import os
import re
import sys
from pathlib import Path

import cv2
import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / 'docs' / 'notebooks').glob('*.ipynb'))
# Replace the values of the cell with the tag "parameters".
SMALL = {
    'fine_tune_classifier': "EPOCHS = 1\nIMAGES = 'tiny'",
    'detect_own_data': 'EPOCHS = 1\nNUM_TRAIN, NUM_VAL = 24, 6\nRECIPE = "recipe.py"',
    'look_into_a_network': 'EPOCHS, NUM_IMAGES = 1, 2\nPRESET += ["--images=1", "--selection=any", "--grid=4"]',
}


def is_parameters(cell):
    return 'parameters' in cell.metadata.get('tags', [])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a notebook in an empty folder; returns the values of its last expressions and the pictures that it shows."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
    monkeypatch.setenv('JUPYTER_PLATFORM_DIRS', '1')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.chdir(tmp_path)

    def run(name):
        monkeypatch.delenv('PYTEST_CURRENT_TEST')  # with it, ipykernel does not collect the output of commands
        notebook = nbformat.read(ROOT / 'docs' / 'notebooks' / f'{name}.ipynb', as_version=4)
        parameters = next(i for i, cell in enumerate(notebook.cells) if is_parameters(cell))
        notebook.cells.insert(parameters + 1, nbformat.v4.new_code_cell(SMALL[name]))
        NotebookClient(
            notebook, timeout=300, kernel_name='python3', resources={'metadata': {'path': tmp_path}}
        ).execute()
        outputs = [output for cell in notebook.cells if cell.cell_type == 'code' for output in cell.outputs]
        shown = [output.data for output in outputs if output.output_type in ('execute_result', 'display_data')]
        text = ''.join(output.text for output in outputs if output.output_type == 'stream')
        return shown, text

    return run


def check_pictures(shown, number):
    pictures = [data['image/png'] for data in shown if 'image/png' in data]
    assert len(pictures) == number and len(set(pictures)) == number


def tiny_class_folders(folder):
    """Bright and dark images in two class folders."""
    for label, value in (('bright', 220), ('dark', 30)):
        (folder / label).mkdir(parents=True)
        for i in range(20):
            image = cv2.randu(cv2.UMat(32, 32, cv2.CV_8UC3).get(), value - 25, value + 25)
            cv2.imwrite(str(folder / label / f'{i}.png'), image)


def test_fine_tune_a_classifier(run, tmp_path):
    tiny_class_folders(tmp_path / 'tiny')
    shown, text = run('fine_tune_classifier')
    check_pictures(shown, 2)
    assert any('confusion' in data.get('text/html', '').lower() for data in shown)
    metrics = json.loads((tmp_path / 'classifier' / 'metrics.json').read_text())['metrics']
    assert 0 <= metrics['accuracy/top1'] <= 100
    assert re.search(r'tiny/bright/0\.png, \(32, 32, 3\): (bright|dark) with probability (0\.[5-9]|1)', text)
    assert not (tmp_path / 'example').exists()  # own images: the example is not written


def test_detect_own_data(run, tmp_path):
    recipe = ROOT / 'configs' / 'detection' / 'retinanet_moganet-xtiny_fpn_digits.py'
    # Six iterations leave low scores.
    (tmp_path / 'recipe.py').write_text(f"_base_ = '{recipe}'\nmodel = dict(test_cfg=dict(score_thr=0.001))\n")
    shown, text = run('detect_own_data')
    check_pictures(shown, 3)
    metrics = json.loads((tmp_path / 'detector' / 'metrics.json').read_text())['metrics']
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    records = json.loads((tmp_path / 'detector' / 'predicted' / 'predictions.json').read_text())
    assert len(records['predictions']) == 4
    assert '24 train, 6 val' in text


def test_look_into_a_network(run, tmp_path):
    shown, text = run('look_into_a_network')
    check_pictures(shown, 4)
    assert 'reduction [4, 8, 16, 32] channels [32, 64, 96, 192]' in text
    assert 'stage 4 (1, 192, 2, 2)' in text
    found = json.loads((tmp_path / 'interactions' / 'interactions.json').read_text())
    strength = found['models']['MogaNet-XT']['strength']
    assert sum(strength) / len(strength) == pytest.approx(1)  # J is relative to the mean over all orders


@pytest.mark.parametrize('path', NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebooks_are_stored_without_results_and_with_one_cell_of_settings(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert sum(map(is_parameters, code)) == 1
    assert path.stem in SMALL
    assert not re.search(r'"(/\w+|~)/', path.read_text())
