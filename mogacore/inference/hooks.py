"""The hook that draws predicted sequences during a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mogacore.files import write_png
from mogacore.runtime.drawing.filmstrips import draw_strip, sequence_rows


@HOOKS.register_module()
class SequenceVisualizationHook(Hook):
    """Draws predicted sequences during a test: input, truth, prediction and difference as strips of frames.

    Args:
        enable: Whether to draw at all.
        interval: Draw every ``interval``-th batch.
        out_dir: Folder for the PNG files, which are named by the index of the sequence.
    """

    def __init__(self, enable: bool = False, interval: int = 1, out_dir: str = 'shown'):
        self.enable, self.interval, self.out_dir = enable, interval, Path(out_dir)

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        if not self.enable or batch_idx % self.interval:
            return
        meta = runner.test_dataloader.dataset.metainfo
        for inputs, sample in zip(data_batch['inputs'], outputs, strict=True):
            rows = sequence_rows(inputs.cpu(), sample.pred_frames.cpu(), sample.gt_frames.cpu(), meta)
            strip = draw_strip(rows)
            write_png(self.out_dir / f'{sample.sample_idx:05}.png', strip)
