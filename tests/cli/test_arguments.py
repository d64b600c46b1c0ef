"""Values of --cfg-options."""

import argparse

import pytest
from mmengine.config import DictAction

from mogacore.cli.arguments import add_cfg_options, parse_value
from mogacore.errors import UserError


def parse(*options):
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


@pytest.mark.parametrize(
    'text',
    ['1', '1e-3', 'true', 'False', 'None', 'abc', '-2', '1,2,3', '[1,2]', '(1,2)', '[(1,2),[a,b],c]', '[]', '()', 'a,b',
     '[1,]', '(a,)', '"x"', "'1'", "['a','b']", '[[]]', '((1,2),(3,4))', 'mogacore://tiny', 'a=b', '', '/x/(1).pth'],
)  # fmt: skip
def test_values_without_spaces_are_read_as_by_mmengine(text):
    ours, theirs = parse_value(text), DictAction._parse_iterable(text)
    assert ours == theirs
    assert type(ours) is type(theirs)


@pytest.mark.parametrize(
    'text, value',
    [
        ('/my data/run 1/a.pth', '/my data/run 1/a.pth'),
        ('/my data/copy (1).pth', '/my data/copy (1).pth'),
        ('[red cell, white cell]', ['red cell', 'white cell']),
        ('( 1, [2 ,3] )', (1, [2, 3])),
        (' 0.5 ', 0.5),
        ("['a b', 'c']", ['a b', 'c']),
    ],
)
def test_spaces_are_kept_inside_a_text_and_dropped_around_it(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize('text', ['[1,2', '1,2]', '(1,2', '[1)),(2]'])
def test_brackets_that_do_not_match_are_an_error(text):
    with pytest.raises(UserError, match=r'--cfg-options a=.* cannot be parsed: brackets of .* do not match'):
        parse(f'a={text}')


@pytest.mark.parametrize(
    'text', ['[dict(a=1,b=2)]', 'dict(a=1)', '{a: 1}', '[dict(a=1)]', '[dict(a=1,b=2),dict(a=2,b=3)]']
)
def test_dicts_are_an_error_that_names_another_way(text):
    with pytest.raises(UserError, match=r'contains a dict; write it in a config file, or .*custom_hooks\.0\.interval'):
        parse(f'custom_hooks={text}')


def test_options_are_collected_by_their_keys():
    options = parse('load_from=/my data/a.pth', 'train_cfg.max_epochs=3', 'a.b=x=y')
    assert options == {'load_from': '/my data/a.pth', 'train_cfg.max_epochs': 3, 'a.b': 'x=y'}
