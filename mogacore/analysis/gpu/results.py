"""Results of checks, and the measures of error that they share."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

OK, FAILED, SKIPPED = 'ok', 'FAILED', 'skipped'

# The root mean square of a gradient that is 0 in exact arithmetic, such as that of a bias before a batch norm, relative
# to the largest; rounding in float64 leaves about 1e-16.
ZERO_GRADIENT = 1e-9


class Skip(Exception):
    """Raised by a check that cannot run here; the message says why."""


@dataclass
class Result:
    """Result of one check.

    Args:
        name: What was checked.
        status: One of ``OK``, ``FAILED``, ``SKIPPED``.
        figure: What was measured; None if nothing was.
        bar: The largest figure that is accepted; None if there is none.
        note: Explanation for a reader.
        traceback: Of an exception that ended the check.
    """

    name: str
    status: str
    figure: float | None = None
    bar: float | None = None
    note: str = ''
    traceback: str = ''

    def line(self) -> str:
        """The result as one line of text."""
        figure = '' if self.figure is None else f'  {self.figure:.2g}'
        bar = '' if self.bar is None else f' (at most {self.bar:.2g})'
        return f'{self.status:7}  {self.name}{figure}{bar}{"  " if self.note else ""}{self.note}'


def at_most(name: str, figure: float, bar: float, note: str = '') -> Result:
    """Result of a check whose figure must not exceed ``bar``; infinity and what is not a number fail."""
    if not math.isfinite(figure):
        return Result(name, FAILED, None, bar, f'the figure is {figure}{", " if note else ""}{note}')
    return Result(name, OK if figure <= bar else FAILED, figure, bar, note)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Euclidean norm of the difference over that of ``expected``, computed in float64 on the CPU."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return ((found - expected).norm() / expected.norm()).item()


def root_mean_square(values: Iterable[float]) -> float:
    """Root mean square; infinite if a value is not finite."""
    squares = [value * value for value in values]
    mean = sum(squares) / len(squares)
    return math.sqrt(mean) if math.isfinite(mean) else math.inf


def kind_of(name: str) -> str:
    """Role of a parameter, its name without the number of the stage or block: ``block.norm1.bias``."""
    return re.sub(r'^(patch_embed|norm)\d+', r'\1', re.sub(r'^blocks\d+\.\d+\.(.*)', r'block.\1', name))


def kind_errors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Relative error of the gradients of each role of parameters, over all blocks together.

    Roles are compared one by one, since a wrong gradient of a small tensor would not show in the norm of all. Gradients
    that are 0 in exact arithmetic are left out.

    Args:
        found: Gradients by parameter name.
        expected: The exact gradients, in float64.
    """
    expected = {name: value.double().cpu() for name, value in expected.items()}
    largest = max(value.square().mean() for value in expected.values())
    differences: dict[str, float] = defaultdict(float)
    totals: dict[str, float] = defaultdict(float)
    for name, value in expected.items():
        if value.square().mean() <= ZERO_GRADIENT**2 * largest:
            continue
        kind = kind_of(name)
        differences[kind] += (found[name].double().cpu() - value).square().sum().item()
        totals[kind] += value.square().sum().item()
    return {kind: math.sqrt(differences[kind] / totals[kind]) for kind in totals}


def worst(errors: Mapping[str, float]) -> tuple[str, float]:
    """Name and value of the largest error; one that is not a number counts as infinite."""
    ranked = {name: error if error == error else math.inf for name, error in errors.items()}
    name = max(ranked, key=ranked.__getitem__)
    return name, ranked[name]
