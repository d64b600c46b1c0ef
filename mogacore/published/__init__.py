"""What was published, as data: sizes, results and addresses of weights of the paper and its repositories."""

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
