import pytest

from mogacore.text import shorten, show, type_name


class Loader:
    pass


@pytest.mark.parametrize(
    'names, text', [([], ''), (['a', 'b'], 'a, b'), ((1, 2, 3), '1, 2 and 1 more'), (iter('abcd'), 'a, b and 2 more')]
)
def test_first_names_are_listed_and_the_others_counted(names, text):
    assert shorten(names, 2) == text


@pytest.mark.parametrize(
    'kind, name', [('mmdet.CocoDataset', 'CocoDataset'), ('BN', 'BN'), (Loader, 'Loader'), (None, '')]
)
def test_type_of_a_config_is_named_without_its_library(kind, name):
    assert type_name(kind) == name


@pytest.mark.parametrize(
    'value, text', [(1.5, '1.5'), ('a\nb', r"'a\nb'"), ([[1, 2, 30.5, 4]], '[[1, 2, 30.5, 4]]'), (None, 'None')]
)
def test_short_values_are_shown_in_pythons_notation(value, text):
    assert show(value) == text


def test_long_and_deep_values_are_cut():
    deep = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 'x' * 10**6, 10**4000, list(range(10**5)), {'a' * 10**5: 1}):
        assert len(show(value)) < 300
