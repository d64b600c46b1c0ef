"""Tasks: how the predictions of each are described and drawn."""

from .base import SCORE_THR, Result, Task
from .classification import Classification
from .detection import Detection
from .hands import HandPose
from .multi_label import MultiLabel
from .pose import Pose, no_objects
from .segmentation import Segmentation

# By the task in the description of an exported file.
TASKS: dict[str, type[Task]] = {
    'classification': Classification,
    'multi-label': MultiLabel,
    'detection': Detection,
    'segmentation': Segmentation,
    'pose': Pose,
    'hands': HandPose,
}

__all__ = [
    'SCORE_THR',
    'TASKS',
    'Classification',
    'Detection',
    'HandPose',
    'MultiLabel',
    'Pose',
    'Result',
    'Segmentation',
    'Task',
    'no_objects',
]
