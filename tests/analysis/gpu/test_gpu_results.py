import math

import pytest
import torch

from mogacore.analysis.gpu.results import at_most, kind_errors, kind_of, relative_error, root_mean_square, worst


@pytest.mark.parametrize(
    'name, kind',
    [
        ('blocks3.14.attn.value.DW_conv1.weight', 'block.attn.value.DW_conv1.weight'),
        ('blocks1.0.norm1.bias', 'block.norm1.bias'),
        ('norm1.bias', 'norm.bias'),
        ('patch_embed1.projection.4.weight', 'patch_embed.projection.4.weight'),
        ('head.weight', 'head.weight'),
    ],
)
def test_role_of_a_parameter(name, kind):
    assert kind_of(name) == kind


def test_errors_by_role_worked_by_hand():
    exact = {
        'blocks1.0.fc.weight': torch.tensor([3.0, 4.0]),
        'blocks2.1.fc.weight': torch.tensor([0.0, 12.0]),
        'norm2.bias': torch.tensor([1e-3]),
        'patch_embed2.projection.bias': torch.tensor([1e-15, -1e-16]),  # 0 but for rounding
    }
    found = {name: value.clone() for name, value in exact.items()}
    found['blocks2.1.fc.weight'] += torch.tensor([1.3, 0.0])
    found['norm2.bias'] *= 2
    found['patch_embed2.projection.bias'] += 1e-8
    errors = kind_errors(found, exact)
    assert errors == pytest.approx({'block.fc.weight': 0.1, 'norm.bias': 1.0})  # 1.3 / sqrt(25 + 144)
    assert worst(errors)[0] == 'norm.bias'


@pytest.mark.parametrize('figure', [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_fails(figure):
    result = at_most('x', figure, 1.0, 'why')
    assert result.status == 'FAILED' and result.figure is None and result.note == f'the figure is {figure}, why'


@pytest.mark.parametrize('figure, status', [(1.0, 'ok'), (1.1, 'FAILED'), (0.0, 'ok')])
def test_figures_up_to_the_bar_pass(figure, status):
    assert at_most('x', figure, 1.0).status == status


def test_lines_name_figure_and_bar():
    assert at_most('logits', 2e-7, 1e-5, 'XT').line() == 'ok       logits  2e-07 (at most 1e-05)  XT'


def test_values_that_are_not_finite_are_not_lost():
    assert math.isnan(relative_error(torch.tensor([math.nan, 1.0]), torch.ones(2)))
    assert root_mean_square([3.0, 4.0]) == pytest.approx(12.5**0.5)
    assert root_mean_square([3.0, math.nan]) == math.inf
    assert worst({'a': 5.0, 'b': math.nan}) == ('b', math.inf)
