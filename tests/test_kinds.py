"""Arguments of public functions are checked against their annotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

import numpy as np
import pytest
import torch

import mogacore
from mogacore.checkpoint import load, load_into
from mogacore.deploy import fuse
from mogacore.deploy.export import load_source
from mogacore.engine.options import RunOptions
from mogacore.engine.runner import test as run_test
from mogacore.engine.runner import train
from mogacore.errors import UserError
from mogacore.inference.predictor import infer
from mogacore.kinds import checks_arguments, describe, fits
from mogacore.runtime import Predictor

if TYPE_CHECKING:
    from fractions import Fraction


@pytest.mark.parametrize('hint, right, wrong', [
    (int, [3, -1, np.int64(3)], [1.5, True, np.bool_(True), '3', None]),
    (float, [3, 0.5, np.float32(1), float('nan')], ['a', None, False, [1.0]]),
    (bool, [True, np.bool_(False)], [0, 1, 'yes', None]),
    (str, ['a', '', Path('a')], [5, b'a', None]),
    (str | Path, ['a', Path('a')], [5, b'a', ['a']]),
    (int | None, [3, None], ['a', 2.5]),
    (Optional[float], [3, None], ['a']),  # noqa: UP045
    (Union[int, Sequence[int]], [3, [3], (3, 4), []], ['3', [1.5], ['a'], {}]),  # noqa: UP007
    (Sequence[int], [[1], (1,), range(3), np.zeros(3)], ['12', 5, {1: 2}, b'ab']),
    (Iterable[str], [['a'], (name for name in 'ab'), {'a'}], ['ab', 5, [5], {'a': 1}]),
    (tuple[int, str], [(1, 'a')], [(1, 2), (1,), ('a', 1)]),
    (tuple[int, ...], [(1, 2, 3), ()], [(1, 'a')]),
    (dict, [{}, {'a': 1}], [[], 5, 'a']),
    (Mapping[str, int], [{'a': 1}], [[('a', 1)]]),
    (Literal['a', 'b'], ['a'], ['c', 5, None]),
    (torch.nn.Module, [torch.nn.Identity()], [5, 'a', None, torch.nn.Identity]),
    (Any, [5, None, object()], []),
    (object, [5, None], []),
])  # fmt: skip
def test_values_of_a_kind(hint, right, wrong):
    for value in right:
        assert fits(value, hint), value
    for value in wrong:
        assert not fits(value, hint), value


def test_in_a_config_names_and_dicts_stand_for_objects():
    assert fits(dict(type='Identity'), torch.nn.Module, in_config=True) and fits('Identity', torch.nn.Module, True)
    assert not fits(5, str, in_config=True) and not fits(Path('a'), str, in_config=True)


@pytest.mark.parametrize('hint, text', [
    (int | None, 'an integer or None'), (str | Path, 'a text or a path'), (bool, 'True or False'),
    (Union[float, Sequence[float]], 'a number or a list of numbers'),  # noqa: UP007
    (Literal['a', 'b'], "'a' or 'b'"), (torch.nn.Module, 'Module'), (dict | list, 'a dict or a list'),
    (list[list], 'a list of lists'),
])  # fmt: skip
def test_kinds_in_words(hint, text):
    assert describe(hint) == text


def test_a_function_keeps_its_signature_defaults_and_errors():
    @checks_arguments(besides=['free'])
    def add(first: int, free: int = 1, *rest: int, scale: float = 1, unknown: Fraction | None = None, **named: int):
        """Adds."""
        return (first + len(rest)) * scale

    assert add(1, 'a', 'b', scale=2, unknown='c', other='d') == 4
    assert add.__doc__ == 'Adds.' and add.__name__ == 'add'
    with pytest.raises(TypeError, match='missing 1 required positional argument'):
        add()
    with pytest.raises(UserError, match=r"^scale 'a' of .*add is invalid: it must be a number$"):
        add(1, scale='a')


TEN = 'moganet_xtiny'


@pytest.mark.parametrize('call, message', [
    (lambda: mogacore.create_model(5), 'name 5 of create_model is invalid: it must be a text'),
    (lambda: mogacore.create_model(TEN, num_classes='ten'), "num_classes 'ten' of create_model is invalid"),
    (lambda: mogacore.create_model(TEN, features_only='yes'), "features_only 'yes' of create_model is invalid"),
    (lambda: mogacore.create_model(TEN, checkpoint=5), 'checkpoint 5 of create_model is invalid: it must be a text or'),
    (lambda: mogacore.create_model(TEN, drop_path_rate='a'), "drop_path_rate 'a' of MogaNet is invalid: it must be a"),
    (lambda: mogacore.create_model(TEN, frozen_stages=1.5), 'frozen_stages 1.5 of MogaNet is invalid'),
    (lambda: mogacore.create_model(TEN, in_chans=0), 'in_channels 0 is invalid: give a positive integer'),
    (lambda: mogacore.create_model(TEN, drop_rate=2), 'drop_rate 2 is invalid: choose from 0 to 1'),
    (lambda: mogacore.create_model(TEN, stem_strides=(2,)), r'stem_strides \(2,\) is invalid: give two'),
    (lambda: load(5), 'source 5 of load is invalid'),
    (lambda: load({}, ema='yes'), "ema 'yes' of load is invalid: it must be True or False or None"),
    (lambda: load_into('net', {}), "model 'net' of load_into is invalid: it must be Module"),
    (lambda: load_into(torch.nn.Identity(), {}, allow_missing=5), 'allow_missing 5 of load_into is invalid'),
    (lambda: fuse('net'), "model 'net' of fuse is invalid"),
    (lambda: load_source(5, 'a.pth'), 'network 5 of load_source is invalid'),
    (lambda: train('a.py', seed=1.5), 'seed 1.5 of the training is invalid: it must be an integer or None'),
    (lambda: train('a.py', cfg_options=['a=1']), r"cfg_options \['a=1'\] of the training is invalid"),
    (lambda: train(5), 'config 5 of the training is invalid'),
    (lambda: run_test('a.py', 'a.pth', tta='yes'), "tta 'yes' of test is invalid"),
    (lambda: infer('a.py', 'a.pth', 'a.png', 'out', score_thr='a'), "score_thr 'a' of infer is invalid"),
    (lambda: infer('a.py', 'a.pth', 'a.png', 'out', tile=1.5), 'tile 1.5 of infer is invalid'),
    (lambda: Predictor('a.onnx', threads=1.5), 'threads 1.5 of Predictor is invalid: it must be an integer or None'),
    (lambda: Predictor('a.onnx', score_thr='a'), "score_thr 'a' of Predictor is invalid: it must be a number"),
    (lambda: Predictor('a.onnx', device=0), 'device 0 of Predictor is invalid: it must be a text'),
    (lambda: Predictor('a.onnx', tile_overlap='a'), "tile_overlap 'a' of Predictor is invalid"),
])  # fmt: skip
def test_wrong_arguments_of_public_functions_are_one_line(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert '\n' not in str(error.value)


def test_the_options_of_a_training_accept_what_the_command_line_gives():
    assert RunOptions(Path('a.py'), track=['wandb'], seed=np.int64(1), cfg_options=None).seed == 1
