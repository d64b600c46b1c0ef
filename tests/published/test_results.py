"""The published results: all rows are present, and unverified figures are omitted."""

from collections import Counter

import pytest
from conftest import ROOT

from mogacore.published import TASKS, load_results, official_weights, published_complexity

# Rows per task of MogaNet and of other networks, counted in the published tables.
MOGANET = {
    'classification': 34,
    'mixup': 11,
    'object-detection': 5,
    'instance-segmentation': 15,
    'semantic-segmentation': 11,
    'pose': 16,
    'face-3d': 1,
    'hand-3d': 1,
    'video-prediction': 22,
}
BASELINES = {'pose': 15, 'face-3d': 4, 'hand-3d': 4, 'video-prediction': 103}


def by_id():
    return {result.id: result for result in load_results()}


def test_every_row_is_present():
    assert Counter(r.task for r in load_results() if r.is_moganet) == MOGANET
    assert Counter(r.task for r in load_results() if not r.is_moganet) == BASELINES
    assert tuple(MOGANET) == TASKS
    assert len(by_id()) == len(load_results()) == 242


def test_a_row_has_an_existing_config_or_a_reason_why_not():
    for result in load_results():
        assert bool(result.config) != bool(result.reason), result.id
        assert not result.config or (ROOT / 'configs' / result.config).is_file(), result.id


def test_top5_of_openmixup_cites_the_page_that_prints_it():
    """OpenMixup's README has a column for top-1 only."""
    rows = [r for r in load_results() if 'openmixup' in r.source and 'imagenet/moganet/README.md' in r.source]
    with_top5 = {r.id for r in rows if 'top5' in r.metrics}
    assert with_top5 == {f'cls-{number:03}' for number in range(20, 25)}
    for row in rows:
        assert ('; top5: docs/en/model_zoos/Model_Zoo_sup.md:' in row.source) == (row.id in with_top5), row.id


def test_figures_not_checked_against_the_paper_are_omitted():
    hidden = {result.id for result in load_results() if not result.metrics} - {'cls-044'}
    assert by_id()['cls-044'].weights and 'no figure is published' in by_id()['cls-044'].note
    assert hidden == {f'paper-{number:03}' for number in range(2, 15)}
    for name in hidden:
        result = by_id()[name]
        assert not result.params_m and not result.gmacs and 'not checked against the paper' in result.note
    assert by_id()['paper-001'].metrics == {'top1': '87.8'} and not by_id()['paper-001'].gmacs


@pytest.mark.parametrize(
    'name, gate, weight_set',
    [
        ('cls-001', 'single', 'raw'),  # the paper's release, trained without EMA
        ('cls-006', 'single', 'ema'),
        ('cls-005', 'double', 'raw'),  # T* of OpenMixup
        ('cls-016', 'double', 'ema'),
        ('cls-020', 'double', 'raw'),
        ('cls-041', 'double', ''),
        ('cls-042', 'single', ''),
        ('cls-044', 'single', 'ema'),  # no_forcefp32 in its name
        ('det-001', 'single', 'raw'),
        ('seg-008', 'single', 'raw'),
        ('pose-001', 'single', 'raw'),
        ('vid-012', '', ''),
    ],
)
def test_gate_and_weight_set_are_the_published_ones(name, gate, weight_set):
    assert (by_id()[name].gate, by_id()[name].weight_set) == (gate, weight_set)


def test_a_result_belongs_to_the_config_of_its_recipe():
    for result in load_results():
        if result.task == 'classification' and result.source.startswith('Westlake-AI/'):
            is_release = '/Westlake-AI/MogaNet/' in result.weights
            assert ('_timm-recipe_' in result.config) is is_release, result.id


def test_weights_have_an_address_and_a_unique_name():
    for result in load_results():
        if result.weights:
            assert result.weights.startswith('https://') and result.weights_name and '/' not in result.weights_name
            assert official_weights()[result.weights_name] == result.weights
    assert by_id()['cls-001'].weights_name == 'moganet_xtiny_sz224_8xbs128_ep300'
    assert by_id()['cls-010'].weights_name == 'moga_xtiny_sz224_8xb128_fp16_ep300'


def test_published_sizes_are_numbers_and_belong_to_configs():
    assert published_complexity()['detection/retinanet_moganet-tiny_fpn_1x_coco.py'] == (14.4, 173.4)
    assert published_complexity()['classification/moganet-small_8xb128_in1k-224.py'] == (25.3, 4.97)
    for result in load_results():
        for value in (*result.metrics.values(), result.params_m or '0', result.gmacs or '0', result.fps or '0'):
            assert float(value) >= 0
