"""The paper's results as data, and their tables.

Here stands the data alone; reproduce.py, plan.py and metafiles.py make of it what tools/reproduce.py prints and writes.
"""

from .results import TASKS, Result, load_results, official_weights, published_complexity, result_of_weights

__all__ = ['TASKS', 'Result', 'load_results', 'official_weights', 'published_complexity', 'result_of_weights']
