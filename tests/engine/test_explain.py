"""Exceptions of a run in one line."""

import pytest

from mogacore.engine.explain import user_errors
from mogacore.errors import UserError


def test_a_missing_folder_is_named(tmp_path):
    message = f'^folder {tmp_path}/gone does not exist, or was removed while it was in use: '
    with pytest.raises(UserError, match=message), user_errors():
        (tmp_path / 'gone' / 'log.json').write_text('')


def test_other_missing_files_pass(tmp_path):
    with pytest.raises(FileNotFoundError), user_errors():
        (tmp_path / 'log.json').read_text()
