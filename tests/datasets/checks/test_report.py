"""What a model expects, which files are read, and how problems are reported."""

import pytest

from mogacore.datasets.checks.report import MIN_SAMPLE, Expected, Faults, Problems, Sample
from mogacore.errors import UserError


@pytest.mark.parametrize('number', [0, 1, 2, 3, 10, 97, 100, 1024])
def test_a_full_sample_reads_every_item_once(number):
    assert sorted(Sample().of(range(number))) == list(range(number))


def test_a_sample_without_time_is_evenly_spread():
    """Its largest gap is at most three times the even one."""
    chosen = sorted(Sample(0).of(range(1000)))
    gaps = [high - low for low, high in zip([0, *chosen], [*chosen, 999], strict=True)]
    assert len(chosen) == MIN_SAMPLE and max(gaps) <= 3 * 1000 / MIN_SAMPLE


def test_every_head_is_found():
    heads = [dict(type='Box', num_classes=3), dict(type='Box', num_classes=80)]
    model = dict(
        backbone=dict(type='MogaNet', num_classes=-1),
        rpn_head=dict(num_classes=1),
        roi_head=dict(bbox_head=heads, mask_head=dict(num_classes=2)),
    )
    expected = Expected.of(model, dict(num_classes=5))
    assert expected.num_classes == {
        'model.roi_head.bbox_head.0': 3,
        'model.roi_head.bbox_head.1': 80,
        'model.roi_head.mask_head': 2,
        'data_preprocessor': 5,
    }
    assert expected.in_channels == 3 and expected.num_keypoints is None
    pose = Expected.of(dict(module=dict(backbone=dict(in_channels=1), head=dict(out_channels=17))))
    assert pose.num_keypoints == 17 and pose.in_channels == 1


def test_ten_problems_are_reported_in_one_line():
    problems = Problems()
    problems.refuse()
    for index in range(12):
        for _ in range(2):
            problems.add(f'line {index}')
    with pytest.raises(UserError) as caught:
        problems.refuse()
    assert str(caught.value) == '; '.join(f'line {index}' for index in range(10)) + '; and 2 more problems'


def test_faults_name_the_first_file_of_each_kind():
    faults, problems = Faults(), Problems()
    for key, kind in ((5, 'size'), (2, 'size'), (7, 'size'), (1, 'value'), (4, 'other'), (3, 'other')):
        faults.add(kind, key, f'{kind} of {key}')
    faults.report(problems)
    assert problems == ['size of 2 (2 more such files)', 'value of 1', 'other of 3 (1 more such file)']
