"""Published data: sizes, results and addresses of weights from the paper and its repositories."""

from .archs import ALIASES, ARCHS
from .results import TASKS, Result, load_results, official_weights, published_complexity, result_of_weights

__all__ = [
    'ALIASES',
    'ARCHS',
    'TASKS',
    'Result',
    'load_results',
    'official_weights',
    'published_complexity',
    'result_of_weights',
]
