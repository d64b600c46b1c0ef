"""Hooks that draw and save predictions during a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import collect_results, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mogacore.engine.dataset_meta import dataset_facts
from mogacore.errors import UserError
from mogacore.files import write_png
from mogacore.runtime.drawing.filmstrips import draw_strip, sequence_rows
from mogacore.runtime.inputs import output_names
from mogacore.runtime.tasks import TASKS

from .prediction_files import ARRAYS, encode, write_prediction_file
from .samples import create_samples


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


@HOOKS.register_module()
class ShowPredictionsHook(Hook):
    """Draws every image of a test with a task library's visualization hook, to PNG files named as ``infer`` does.

    The libraries name a drawing by the last part of the path of its image, so that images of the same name in different
    folders overwrite each other.

    Args:
        hook: Config of the library's hook.
        out_dir: Folder for the PNG files, which are named by the path of the image below the folder of all images.
    """

    def __init__(self, hook: dict, out_dir: str):
        self.hook: Any = HOOKS.build(hook)
        self.out_dir = Path(out_dir)

    def before_test(self, runner) -> None:
        dataset = runner.test_dataloader.dataset
        records = (dataset.get_data_info(index) for index in range(len(dataset)))
        paths = [Path(path) for path in dict.fromkeys(record.get('img_path') for record in records) if path]
        names = {str(path): name for path, name in output_names(paths, paths).items()}
        self.hook._visualizer = _Drawings(self.hook._visualizer, self.out_dir, names)

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        inputs = data_batch['inputs']
        if len(inputs) and isinstance(
            inputs[0], (list, tuple)
        ):  # views of test-time augmentation, each with all images
            data_batch = dict(data_batch, inputs=inputs[0])
        self.hook.after_test_iter(runner, batch_idx, data_batch, outputs)


class _Drawings:
    """A library's visualizer that writes each drawing to a file of its own."""

    def __init__(self, visualizer: Any, out_dir: Path, names: dict[str, str]):
        self.visualizer, self.out_dir, self.names = visualizer, out_dir, names
        self.counts: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.visualizer, name)

    def add_datasample(self, name: str, image: Any, data_sample: Any, **settings: Any) -> None:
        settings['out_file'] = self._file(name, data_sample)
        self.visualizer.add_datasample(name, image, data_sample=data_sample, **settings)

    def visualize_cls(self, image: Any, data_sample: Any, **settings: Any) -> None:
        settings['out_file'] = self._file(settings.get('name', ''), data_sample)
        self.visualizer.visualize_cls(image, data_sample, **settings)

    def _file(self, name: str, sample: Any) -> str:
        """Path of a drawing: with a number from the second object of an image on, which mmpose draws one by one."""
        name = self.names.get(str(Path(sample.get('img_path') or '')), str(sample.get('sample_idx', name)))
        self.counts[name] += 1
        number = f'_{self.counts[name] - 1}' if self.counts[name] > 1 else ''
        return str(self.out_dir / f'{name}{number}.png')


@HOOKS.register_module()
class SavePredictionsHook(Hook):
    """Saves the predictions of a test to a file, see :mod:`mogacore.inference.prediction_files`.

    Args:
        path: File to write.
        header: Fields of its first line; the hook adds the task, the names of the data set, and the metrics.

    Raises:
        UserError: If the model predicts 3D poses.
    """

    def __init__(self, path: str, header: dict):
        self.path, self.header = path, header
        self.lines: list[str] = []

    def before_test(self, runner) -> None:
        self.lines.clear()
        meta = runner.test_dataloader.dataset.metainfo
        self.samples = create_samples(runner.cfg, meta)
        self.task = next(name for name, task in TASKS.items() if task is self.samples.task)
        if self.task not in ARRAYS:
            raise UserError(f'--save-predictions supports {", ".join(ARRAYS)}, not {self.task}: omit it')
        facts = dataset_facts(meta)
        keypoints = facts['keypoints']
        self.names = {'classes': facts['classes'], 'keypoints': keypoints and keypoints['names']}

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        for sample in outputs:
            names = {'image': sample.get('img_path'), 'image_id': sample.get('img_id'), 'id': sample.get('id')}
            names = {key: value for key, value in names.items() if key == 'image' or value is not None}
            self.lines.append(encode(names, self.samples.result([sample])))

    def after_test_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        lines = collect_results(self.lines, len(runner.test_dataloader.dataset))
        if is_main_process():
            header = {'task': self.task, **self.header, **self.names, 'metrics': metrics}
            write_prediction_file(self.path, header, lines or [])
