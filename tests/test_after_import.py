import sys
from importlib.util import find_spec

import pytest

from mogacore.after_import import _Finder, call_after_import


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Module ``other`` of another library, and ``ours`` with a function that records its calls."""
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / '__init__.py').write_text('done = False\nfrom . import part\ndone = True')
    (tmp_path / 'other' / 'part.py').touch()
    (tmp_path / 'ours.py').write_text('import sys\ncalls = []\ndef add(): calls.append(sys.modules["other"].done)')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'meta_path', [*sys.meta_path])
    yield
    for name in ('other', 'other.part', 'ours'):
        sys.modules.pop(name, None)


def waiting():
    return [finder.name for finder in sys.meta_path if isinstance(finder, _Finder) and finder.name.startswith('other')]


def test_the_function_runs_once_after_the_module():
    call_after_import('other', 'ours', 'add')
    assert find_spec('other') is not None  # looking for a module does not import it
    assert waiting() == ['other'] and 'ours' not in sys.modules
    import other  # type: ignore[import-not-found]

    assert sys.modules['ours'].calls == [True] and waiting() == [] and other.__spec__.name == 'other'


def test_the_function_runs_at_once_if_the_module_is_there():
    import other  # type: ignore[import-not-found]  # noqa: F401

    call_after_import('other', 'ours', 'add')
    assert sys.modules['ours'].calls == [True]


def test_a_submodule_is_waited_for():
    call_after_import('other.part', 'ours', 'add')
    import other  # type: ignore[import-not-found]  # noqa: F401

    assert sys.modules['ours'].calls == [False]


def test_missing_modules_stay_missing():
    call_after_import('other_missing', 'ours', 'add')
    assert find_spec('other_missing') is None
    with pytest.raises(ModuleNotFoundError):
        import other_missing  # type: ignore[import-not-found]  # noqa: F401
