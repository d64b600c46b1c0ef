"""Random splits."""

from collections import Counter

import pytest

from mogacore.init_data.split import draw


@pytest.mark.parametrize('fraction', [0.1, 0.2, 0.5])
@pytest.mark.parametrize('sizes', [dict(a=100, b=30, c=7), dict(a=10, b=10), dict(a=5, b=1, c=1), dict(a=2)])
def test_each_group_has_its_share(sizes, fraction):
    keys = {f'{key}{index}': key for key, number in sizes.items() for index in range(number)}
    drawn = draw(keys, fraction, 0)
    counts = Counter(keys[name] for name in drawn)
    total = sum(sizes.values())
    assert len(drawn) == min(max(round(fraction * total), 1), total - 1)
    for key, number in sizes.items():
        assert abs(counts[key] - fraction * number) < 1 or total < 10
        assert counts[key] < number  # training sees every group


def test_the_split_depends_on_names_and_seed_only():
    names = [f'{index}' for index in range(50)]
    keys = dict.fromkeys(names)
    assert draw(keys, 0.2, 0) == draw(dict.fromkeys(reversed(names)), 0.2, 0)
    assert draw(keys, 0.2, 0) != draw(keys, 0.2, 1)


def test_single_images_of_a_class_are_drawn_last():
    assert len(draw({'a': 'x', 'b': 'y', 'c': 'z'}, 0.2, 0)) == 1
