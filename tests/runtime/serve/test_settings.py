"""Settings out of range name their flag."""

import pytest

from mogacore.errors import UserError
from mogacore.runtime.serve.settings import Settings


@pytest.mark.parametrize('name', ['max_batch', 'max_queue', 'max_bytes', 'body_timeout_s', 'grace_s'])
def test_limits_are_positive(name):
    with pytest.raises(UserError, match=f'--{name.replace("_", "-")} 0 is out of range: use 1 or more'):
        Settings(**{name: 0})


def test_delay_may_be_zero():
    assert Settings(max_delay_ms=0).max_delay_ms == 0
    for value in (-1, float('nan')):
        with pytest.raises(UserError, match=r'--max-delay-ms .* use 0 or more'):
            Settings(max_delay_ms=value)


@pytest.mark.parametrize('name', ['max_delay_ms', 'body_timeout_s', 'grace_s'])
def test_times_are_finite(name):
    with pytest.raises(UserError, match=r'inf is out of range: .* at most 9000000000'):
        Settings(**{name: float('inf')})
