"""Sequences of videos for video prediction, in the format of the data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement

from mogacore.engine.dataset_meta import video_facts
from mogacore.errors import UserError
from mogacore.runtime.videos import FrameFolder, Video, cut_sequences


def sequences_of_videos(
    paths: list[Path], cfg: Config, at_end: Callable[[Video | FrameFolder], None] = lambda video: None
) -> Iterator[dict]:
    """Cut videos into consecutive sequences, in the format of the video prediction data sets.

    Frame step and channel order are those of the config's test set. The last sequence of a video may lack some or all
    target frames.

    Args:
        paths: Video files, and folders of frames.
        cfg: Config of a video predictor: ``input_shape`` (T, C, H, W) and ``model.num_targets``.
        at_end: Called with each video after its last frame, before its last sequence.

    Raises:
        UserError: If the network does not predict images, or a video is invalid or too short.
    """
    num_inputs, *size = cfg.input_shape
    facts = video_facts(cfg)
    if size[0] not in (1, 3) or not facts['is_image']:
        raise UserError('this network does not predict images: omit the input to predict sequences of its test set')
    num_targets = cfg.model.get('num_targets') or num_inputs
    is_bgr = facts['channel_order'] == 'bgr'
    for sequence in cut_sequences(paths, num_inputs, num_targets, tuple(size), facts['frame_step'], is_bgr, at_end):
        frames = torch.from_numpy(sequence.frames)
        meta = dict(name=sequence.name, sample_idx=sequence.start)
        sample = BaseDataElement(gt_frames=frames[num_inputs:], metainfo=meta)
        yield dict(inputs=frames[:num_inputs], data_samples=sample)
