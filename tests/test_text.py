import pytest

from mogacore.text import shorten, type_name


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
