"""Names of served models."""

import shutil

import pytest

pytest.importorskip('onnx')
from onnx_files import write_classifier, write_video_predictor

from mogacore.errors import UserError
from mogacore.runtime.serve.loading import load_predictors


@pytest.fixture
def path(tmp_path):
    return write_classifier(tmp_path / 'colors.onnx')


def test_models_are_named_by_file_or_by_the_user(path):
    predictors = load_predictors([str(path), f'second={path}'], threads=1)
    assert list(predictors) == ['colors', 'second']
    assert all(predictor.task == 'classification' for predictor in predictors.values())


def test_file_whose_path_contains_an_equals_sign_is_found(path):
    folder = path.parent / 'run=1'
    folder.mkdir()
    assert list(load_predictors([str(shutil.copy(path, folder))])) == ['colors']


@pytest.mark.parametrize(
    'sources, message',
    [
        (['{0}', '{0}'], r'two models are named colors: name them differently, as in other=.*colors\.onnx'),
        (['a b={0}'], "model name 'a b' is invalid: use letters"),
        (['={0}'], "model name '' is invalid"),
    ],
)
def test_names_that_are_invalid_or_repeated_are_reported(path, sources, message):
    with pytest.raises(UserError, match=message):
        load_predictors([source.format(path) for source in sources])


def test_model_that_takes_no_images_is_reported(tmp_path):
    path = write_video_predictor(tmp_path / 'frames.onnx')
    with pytest.raises(UserError, match=r'frames\.onnx is a model for video_prediction, not for images'):
        load_predictors([str(path)])
