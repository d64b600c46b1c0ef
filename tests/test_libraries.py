"""Task libraries: missing, broken, imported quietly."""

import subprocess
import sys
from importlib import import_module

import pytest

import mogacore.registry  # noqa: F401, registers our classes
from mogacore.libraries import TASK_LIBRARIES, register_backbone
from mogacore.models import MogaNet


def test_missing_library_is_skipped():
    register_backbone(MogaNet, libraries=('no_such_library',))


def test_error_of_a_broken_library_is_raised(tmp_path, monkeypatch):
    (tmp_path / 'broken_library').mkdir()
    (tmp_path / 'broken_library' / '__init__.py').write_text('raise OSError("its own error")')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError, match='its own error'):
        register_backbone(MogaNet, libraries=('broken_library',))


def test_registering_twice_is_harmless():
    register_backbone(MogaNet)
    assert import_module('mmengine.registry').MODELS.get('MogaNet') is MogaNet


@pytest.mark.parametrize('library', TASK_LIBRARIES)
def test_importing_a_library_does_not_mention_onedl(library):
    pytest.importorskip(library)
    code = f'import mogacore.registry; from mogacore.libraries import import_quietly; import_quietly({library!r})'
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True)
    assert 'OneDL' not in done.stdout + done.stderr
