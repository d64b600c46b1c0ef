"""Multi-order interactions: how much context the parts of an image need to act together in a network's decision.

The players are the cells of a grid over the image; v(S) is the score of the network when only the cells of S are
visible. The m-order interaction of two cells is what both together add to v beyond what each adds alone, averaged over
contexts of m other cells. The strength of an order is its mean absolute interaction, relative to the mean of all
orders.

Sources: definitions in Zhang et al., arXiv 2009.11729, and Deng et al., arXiv 2111.06236; comparison of networks in Li
et al., MogaNet, arXiv 2211.03295, section 3.
"""

from .report import draw, write_report
from .run import WAIT_S, PartialResults, choose_images, exact_arithmetic, measure, measure_masking, run
from .sampling import draw_contexts, draw_pairs, sample_contexts, sample_pairs
from .scores import MaskedScores, bootstrap_error, interactions, score, strength
from .settings import PRESETS, RATIOS, SCORES, SELECTIONS, Settings, count_pairs, num_contexts, orders_of

__all__ = [
    'PRESETS',
    'RATIOS',
    'SCORES',
    'SELECTIONS',
    'WAIT_S',
    'MaskedScores',
    'PartialResults',
    'Settings',
    'bootstrap_error',
    'choose_images',
    'count_pairs',
    'draw',
    'draw_contexts',
    'draw_pairs',
    'exact_arithmetic',
    'interactions',
    'measure',
    'measure_masking',
    'num_contexts',
    'orders_of',
    'run',
    'sample_contexts',
    'sample_pairs',
    'score',
    'strength',
    'write_report',
]
