"""Drawings of predictions, one module per task, made with the visualizer of the task's library."""

from .base import LEGIBLE_SIDE, Task, draw_overview
from .classification import Classification
from .detection import Detection
from .pose import HandPose, Pose, draw_skeletons, mm_per_pixel
from .segmentation import Segmentation
from .tasks import TASKS, create_task

__all__ = [
    'LEGIBLE_SIDE',
    'TASKS',
    'Classification',
    'Detection',
    'HandPose',
    'Pose',
    'Segmentation',
    'Task',
    'create_task',
    'draw_overview',
    'draw_skeletons',
    'mm_per_pixel',
]
