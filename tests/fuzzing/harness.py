"""What a fuzzing target is, its limits, and damaged inputs; for tests/test_fuzz.py and tests/stress/fuzz.py.

A target reads one input. It may succeed, or refuse the input with a UserError of one line; all else is a bug.
"""

from __future__ import annotations

import copy
import resource
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import mogacore
from mogacore.errors import UserError

LONGEST_S = 10.0  # of the process's CPU time, which other processes do not change
LARGEST_MIB = 1024.0  # by which one input may raise the peak memory of the process


class ExcessError(Exception):
    """An input took too much time or memory."""


@dataclass(frozen=True)
class Target:
    """A reader of mogacore.

    Args:
        inputs: Strategy of the inputs.
        run: Reads an input; returns 'accepted', or 'refused' where it sees the refusal itself.
        valid: Inputs that are accepted.
        is_bytes: Whether any bytes are an input. Otherwise only the strategy makes inputs.
    """

    inputs: st.SearchStrategy
    run: Callable[[Any], str]
    valid: Sequence[Any]
    is_bytes: bool = False


def attempt(target: Target, value: Any) -> str:
    """Run a target on an input.

    Returns:
        'accepted' or 'refused'.

    Raises:
        ExcessError: If it takes more than ``LONGEST_S`` or ``LARGEST_MIB``.
        AssertionError: If the message of the refusal is not one line of printable characters.
        Exception: Any other exception of the target.
    """
    before, start = peak_mib(), time.process_time()
    try:
        outcome = target.run(value)
    except UserError as error:
        check_message(str(error))
        outcome = 'refused'
    seconds, grown = time.process_time() - start, peak_mib() - before
    if seconds > LONGEST_S:
        raise ExcessError(f'took {seconds:.0f} s of CPU time')
    if grown > LARGEST_MIB:
        raise ExcessError(f'took {grown:.0f} MiB')
    return outcome


def check_message(text: str) -> None:
    """Check the message of a refusal."""
    assert text and text.isprintable(), f'not one line of printable text: {text[:200]!r}'


def peak_mib() -> float:
    """Largest memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def place_of(error: BaseException) -> str:
    """Kind of an error and the innermost line of mogacore that it passed, by which bugs are told apart."""
    package = str(Path(mogacore.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if frame.filename.startswith(package)] or frames
    if isinstance(error, RecursionError):
        inner = inner[:1]
    where = f'{Path(inner[-1].filename).name}:{inner[-1].lineno} in {inner[-1].name}' if inner else 'unknown'
    return f'{type(error).__name__} at {where}'


def damaged(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes near one of the seeds: up to four edits, each of which overwrites, inserts, removes or repeats a part."""
    places = st.floats(0, 1, exclude_max=True)
    edits = st.tuples(
        st.sampled_from(('set', 'insert', 'remove', 'repeat', 'cut')),
        places,
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(NUMBERS)),
        st.integers(1, 64),
    )
    return st.builds(_edited, st.sampled_from(seeds), st.lists(edits, min_size=1, max_size=4))


# Numbers at the limits of their types, in both byte orders.
NUMBERS = tuple(
    number.to_bytes(size, order, signed=number < 0)
    for size in (2, 4, 8)
    for number in (0, 1, -1, 2 ** (8 * size - 1) - 1, -(2 ** (8 * size - 1)))
    for order in ('little', 'big')
)


def _edited(data: bytes, edits: list[tuple[str, float, bytes, int]]) -> bytes:
    for kind, place, new, length in edits:
        start = int(place * (len(data) + 1))
        if kind == 'set':
            data = data[:start] + new + data[start + len(new) :]
        elif kind == 'insert':
            data = data[:start] + new + data[start:]
        elif kind == 'remove':
            data = data[:start] + data[start + length :]
        elif kind == 'repeat':
            data = data[:start] + data[start : start + length] * 3 + data[start + length :]
        else:
            data = data[:start]
    return data


TEXTS = (
    '', 'a', 'name', '1.png', '..', '/', '/etc', '.', 'a/b', '\0', 'a\nb', '\x1b[31m', '\ud800', 'é', '0', '-1', 'nan',
    'x' * 300, '{{ fileBasename }}', '{{_base_.model}}', '{{$USER:}}',
)  # fmt: skip
WHOLE = (0, 1, -1, 2, 3, 2**31, -(2**31), 2**63, 2**64, 10**400, -(10**400))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.sampled_from(WHOLE), st.integers(-5, 100), st.floats(), st.sampled_from(TEXTS),
    st.text(max_size=6),
)  # fmt: skip


def _nested(levels: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind is list else {'a': value}
    return value


# Any JSON value; lists and dicts of some depth, and rarely of a great depth.
VALUES = st.one_of(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(TEXTS[:6]), inner, max_size=3),
        max_leaves=6,
    ),
    st.builds(_nested, st.sampled_from((50, 500)), st.sampled_from((list, dict))),
)


@st.composite
def near(draw, documents: Sequence[Any], keys: Sequence[str] = ('a',), values=VALUES, max_edits: int = 3) -> Any:
    """A document of dicts and lists near one of ``documents``: each edit replaces, removes, repeats or adds an entry.

    Args:
        draw: Function of Hypothesis.
        documents: Valid documents.
        keys: Names of entries to add.
        values: Strategy of new entries.
        max_edits: Largest number of edits.
    """
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, max_edits))):
        place = document
        while True:
            names = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not names:
                break
            name = draw(st.sampled_from(names))
            if not isinstance(place[name], (dict, list)) or not place[name] or draw(st.integers(0, 3)) == 0:
                break
            place = place[name]
        kind = draw(st.sampled_from(('replace', 'replace', 'remove', 'repeat', 'add')))
        if names and kind == 'replace':
            place[name] = draw(values)
        elif names and kind == 'remove':
            del place[name]
        elif names and kind == 'repeat' and isinstance(place, list):
            place.insert(name, copy.deepcopy(place[name]))
        elif isinstance(place, list):
            place.append(draw(values))
        else:
            place[draw(st.sampled_from(keys))] = draw(values)
    return document


def limit_memory(gib: int) -> None:
    """Let allocations fail that would take the process above ``gib``, so that they do not take the machine's memory."""
    resource.setrlimit(resource.RLIMIT_AS, (gib << 30, resource.RLIM_INFINITY))


def show(error: BaseException) -> str:
    """The last lines of a traceback."""
    lines = ''.join(traceback.format_exception(error)).splitlines()
    return '\n'.join(lines if len(lines) <= 30 else [*lines[:4], '...', *lines[-24:]])
