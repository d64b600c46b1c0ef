"""The published tables compared with our results: sizes computed from configs, accuracies read from work dirs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from mmengine.config import Config

from mogacore.analysis.complexity import complexity
from mogacore.engine.config import load_config
from mogacore.errors import UserError
from mogacore.files import write_figure
from mogacore.published import TASKS, Result

PARAMS_TOLERANCE, MACS_TOLERANCE = 0.003, 0.02
# Metric of the published tables to the metric of our logs and its factor.
OUR_METRICS = {
    'top1': ('accuracy/top1', 1),
    'top5': ('accuracy/top5', 1),
    'box_mAP': ('coco/bbox_mAP', 100),
    'mask_mAP': ('coco/segm_mAP', 100),
    'mIoU': ('mIoU', 1),
    'mAcc': ('mAcc', 1),
    'AP': ('coco/AP', 100),
    'AP50': ('coco/AP .5', 100),
    'AP75': ('coco/AP .75', 100),
    'AR': ('coco/AR', 100),
    'AR_M': ('coco/AR (M)', 100),
    'AR_L': ('coco/AR (L)', 100),
    'mse': ('video/mse', 1),
    'mae': ('video/mae', 1),
    'rmse': ('video/rmse', 1),
    'ssim': ('video/ssim', 1),
    'psnr': ('video/psnr', 1),
    'lpips': ('video/lpips', 1),
}
LOWER_IS_BETTER = ('mse', 'mae', 'rmse', 'lpips')
# Settings that only affect training, not the size of a model.
TRAINING_KEYS = ('init_cfg', 'train_cfg', 'drop_path_rate', 'loss', 'attn_force_fp32', 'data_preprocessor', 'with_cp')


@dataclass(frozen=True)
class Measured:
    """Accuracy measured with this code.

    Args:
        metrics: Published name of a metric to our value, in the published unit.
        source: File with the values.
    """

    metrics: dict[str, float]
    source: Path


@dataclass(frozen=True)
class Row:
    """A published result and ours.

    Args:
        result: The published result.
        params: Parameters of our config's model; None if there is no config.
        macs: Multiply-adds of our config's model; None if there is no config.
        measured: Our accuracy; None if not measured.
    """

    result: Result
    params: int | None = None
    macs: int | None = None
    measured: Measured | None = None

    @property
    def params_deviation(self) -> float | None:
        """Relative difference of our number of parameters from the published one; None if one is missing."""
        return deviation(self.params, self.result.params_m, 1e6)

    @property
    def macs_deviation(self) -> float | None:
        """Relative difference of our multiply-adds from the published ones; None if one is missing."""
        return deviation(self.macs, self.result.gmacs, 1e9)

    @property
    def agrees(self) -> bool | None:
        """Whether both sizes equal the published ones within rounding and tolerance; None if no size was published."""
        verdicts = [
            within(self.params, self.result.params_m, 1e6, PARAMS_TOLERANCE),
            within(self.macs, self.result.gmacs, 1e9, MACS_TOLERANCE),
        ]
        known = [verdict for verdict in verdicts if verdict is not None]
        return all(known) if known else None


def deviation(ours: float | None, printed: str, unit: float) -> float | None:
    """Relative difference of our value from a printed figure in ``unit``; None if one is missing."""
    return None if ours is None or not printed else ours / (float(printed) * unit) - 1


def within(ours: float | None, printed: str, unit: float, tolerance: float) -> bool | None:
    """Whether our value equals a printed figure up to rounding and a relative tolerance; None if one is missing."""
    if ours is None or not printed:
        return None
    half_digit = 10.0 ** int(Decimal(printed).as_tuple().exponent) / 2
    return abs(ours / unit - float(printed)) <= half_digit + tolerance * float(printed)


@dataclass
class Sizes:
    """Parameters and multiply-adds of configs, computed once per network.

    Args:
        configs: Folder of the configs.
    """

    configs: Path
    known: dict[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, config: str) -> tuple[int, int]:
        """Number of parameters and of multiply-adds of a config below ``configs``, for its ``input_shape``."""
        cfg = load_config(self.configs / config)
        key = json.dumps([_untrained(cfg.model.to_dict()), cfg.input_shape], sort_keys=True, default=repr)
        if key not in self.known:
            parts = complexity(cfg)
            self.known[key] = sum(part.params for part in parts), sum(part.macs for part in parts)
        return self.known[key]


def _untrained(value):
    if isinstance(value, dict):
        return {key: _untrained(item) for key, item in value.items() if key not in TRAINING_KEYS}
    return [_untrained(item) for item in value] if isinstance(value, (list, tuple)) else value


def reproduce(
    results: Iterable[Result],
    configs: Path,
    work_dirs: Path,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Row]:
    """Compute our sizes and read our accuracies for each published result.

    Args:
        results: Results from :func:`select`.
        configs: Folder of the configs.
        work_dirs: Folder of the trainings and tests, see :func:`find_measured`.
        progress: Called with the id of each row before its computation.

    Raises:
        UserError: If a config cannot be read.
    """
    sizes, rows = Sizes(configs), []
    for result in results:
        progress(result.id)
        if not result.config:
            rows.append(Row(result))
            continue
        params, macs = sizes.of(result.config)
        rows.append(Row(result, params, macs, find_measured(result, configs, work_dirs)))
    return rows


def cfg_options(result: Result, cfg: Config) -> dict:
    """Options for a result on top of its config: the gate function of its weights, if the config has the other one."""
    name = 'model.backbone.attn_force_fp32'
    if result.attn_force_fp32 is None or bool(cfg.model.backbone.get('attn_force_fp32')) == result.attn_force_fp32:
        return {}
    return {name: result.attn_force_fp32}


def run_name(result: Result, cfg: Config) -> str:
    """Name of the work dir of a result's training: the config, and the gate function if it is not the config's."""
    return Path(result.config).stem + (f'_{result.gate}-gate' if cfg_options(result, cfg) else '')


def published_test(result: Result, work_dirs: Path) -> Path:
    """Path of the metrics of a test of a result's published weights."""
    return work_dirs / 'published' / f'{result.id}.json'


def find_measured(result: Result, configs: Path, work_dirs: Path) -> Measured | None:
    """Find our accuracy for a result.

    Sources, in order of preference: a test of the published weights; the newest test of our training, a JSON file of
    ``tools/test.py --out`` in its work dir, named as :func:`run_name` or as the config; the best validation of all
    runs by the first metric, from mmengine's ``vis_data/scalars.json``.

    Returns:
        The accuracy, or None if there is none.
    """
    test = published_test(result, work_dirs)
    if test.exists() and (metrics := _ours(result, json.loads(test.read_text()).get('metrics', {}))):
        return Measured(metrics, test)
    cfg = load_config(configs / result.config)
    folders = dict.fromkeys((work_dirs / run_name(result, cfg), work_dirs / Path(result.config).stem))
    for folder in folders:
        for path in sorted(folder.glob('*.json'), key=lambda path: path.stat().st_mtime, reverse=True):
            if metrics := _ours(result, _test_of(path, result.config)):
                return Measured(metrics, path)
    for folder in folders:
        best = None
        for path in sorted(folder.rglob('vis_data/scalars.json')):
            for values in _validations(path):
                metrics = _ours(result, values)
                if metrics and (best is None or _is_better(result, metrics, best.metrics)):
                    best = Measured(metrics, path)
        if best is not None:
            return best
    return None


def _test_of(path: Path, config: str) -> dict:
    try:
        content = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError):
        return {}
    is_test = isinstance(content, dict) and isinstance(content.get('metrics'), dict)
    # The test may have been given the short name of the config, which has no suffix.
    name = Path(content.get('config', '')).name.removesuffix('.py') if is_test else None
    return content['metrics'] if name == Path(config).stem else {}


def _validations(path: Path) -> Iterable[dict]:
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that is still writing, or was killed
            continue


def _ours(result: Result, values: dict) -> dict[str, float]:
    """Our values of the published metrics, in the published unit."""
    group = result.dataset.partition('mv (')[2].rstrip(')')  # variable of a WeatherBench row: r, t, u, v
    found = {}
    for name in result.metrics:
        key, factor = OUR_METRICS.get(name, (None, 1))
        if group and len(group) == 1 and key is not None:
            key = key.replace('video/', f'video/{group}_')
        if key in values:
            found[name] = factor * float(values[key])
    return found


def _is_better(result: Result, ours: dict[str, float], best: dict[str, float]) -> bool:
    first = next(name for name in result.metrics if name in ours)
    if first not in best:
        return False
    return ours[first] < best[first] if first in LOWER_IS_BETTER else ours[first] > best[first]


def difference(result: Result, name: str, measured: Measured | None) -> float | None:
    """Our value of a metric minus the published one; None if not measured."""
    if measured is None or name not in measured.metrics:
        return None
    return measured.metrics[name] - float(result.metrics[name])


def is_worse(name: str, value: float) -> bool:
    """Whether a difference means a worse result, given the direction of the metric."""
    return value > 0 if name in LOWER_IS_BETTER else value < 0


def records(rows: Iterable[Row]) -> list[dict]:
    """Convert rows to flat dicts for CSV and JSON."""
    found = []
    for row in rows:
        result, measured = row.result, row.measured
        found.append(
            dict(
                id=result.id,
                task=result.task,
                dataset=result.dataset,
                method=result.method,
                model=result.model,
                config=result.config,
                resolution=result.resolution,
                schedule=result.schedule,
                published_params_M=result.params_m,
                params=row.params,
                published_gmacs=result.gmacs,
                macs=row.macs,
                sizes_agree=row.agrees,
                published_metrics=result.metrics,
                metrics=measured.metrics if measured else {},
                measured_in=str(measured.source) if measured else '',
                weights=result.weights,
                gate=result.gate,
                weight_set=result.weight_set,
                source=result.source,
                remark=remark(row),
            )
        )
    return found


def remark(row: Row) -> str:
    """Remark of a row: why there is no config, why the size differs, other notes."""
    exception = row.result.exception if row.agrees is False else ''
    return '; '.join(part for part in (row.result.reason, exception, row.result.note) if part)


def to_csv(rows: Iterable[Row]) -> str:
    """The rows as CSV; metrics are ``name=value``, separated by spaces."""
    flat = records(rows)
    for record in flat:
        for key in ('published_metrics', 'metrics'):
            record[key] = ' '.join(f'{name}={value}' for name, value in record[key].items())
    file = io.StringIO()
    writer = csv.DictWriter(file, flat[0] if flat else ['id'], lineterminator='\n')
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


COLUMNS = ('row', 'model', 'setting', 'parameters (M)', 'GMACs', 'published', 'ours', 'remark')


def to_markdown(rows: Iterable[Row]) -> str:
    """The rows as Markdown, one table per task; sizes are ours / published."""
    rows, blocks = list(rows), []
    for task in TASKS:
        own = [row for row in rows if row.result.task == task]
        if not own:
            continue
        lines = [f'## {task}\n', '| ' + ' | '.join(COLUMNS) + ' |', '|---' * len(COLUMNS) + '|']
        for row in own:
            result = row.result
            ours = ', '.join(
                f'{name} {value:.4g}' for name, value in (row.measured.metrics if row.measured else {}).items()
            )
            cells = (
                result.id,
                f'{result.model}<br>`{result.config.removesuffix(".py")}`' if result.config else result.model,
                setting(result),
                _both(row.params, 1e6, result.params_m),
                _both(row.macs, 1e9, result.gmacs),
                result.measures,
                ours,
                remark(row),
            )
            lines.append('| ' + ' | '.join(cells) + ' |')
        blocks.append('\n'.join(lines))
    return '\n\n'.join(blocks) + '\n'


def setting(result: Result) -> str:
    """Method, data set, resolution and schedule of a result, as text."""
    return ', '.join(part for part in (result.method, result.dataset, result.resolution, result.schedule) if part)


def _both(ours: int | None, unit: float, printed: str) -> str:
    return ' / '.join(('-' if ours is None else f'{ours / unit:.2f}', printed or '-'))


def draw(rows: Iterable[Row], path: str | Path) -> None:
    """Draw accuracy on ImageNet-1K over parameters and over multiply-adds, like figure 1 of the paper.

    Lines connect the published results of one recipe; filled points are measured with this code.

    Args:
        rows: Rows from :func:`reproduce`; those without a published ImageNet-1K accuracy are skipped.
        path: PNG file to write.

    Raises:
        UserError: If no row remains.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.result.task == 'classification' and 'top1' in row.result.metrics and row.params]
    if not rows:
        raise UserError('no classification row to draw: name no task, or classification')
    figure = Figure(figsize=(11, 4.5), layout='constrained')
    axes = figure.subplots(1, 2, sharey=True)
    series: dict[str, list[Row]] = {}
    for row in rows:
        source = row.result.source.split(':')[0].split(' ')[0]
        recipe = f'{source}, {row.result.resolution}, {row.result.schedule}'
        if '*' in row.result.model:
            recipe += ', 3-Augment'
        series.setdefault(recipe, []).append(row)
    colors = ('#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#bbbbbb', '#000000') * 3
    for axis, unit, label in ((axes[0], 'params', 'parameters, M'), (axes[1], 'macs', 'multiply-adds, G')):
        scale = 1e6 if unit == 'params' else 1e9
        for (recipe, own), color in zip(series.items(), colors, strict=False):
            own = sorted(own, key=lambda row: getattr(row, unit))
            xs = [getattr(row, unit) / scale for row in own]
            axis.plot(xs, [float(row.result.metrics['top1']) for row in own], color=color, marker='o',
                      markerfacecolor='white', linewidth=1, label=recipe)  # fmt: skip
            for x, row in zip(xs, own, strict=True):
                if row.measured and 'top1' in row.measured.metrics:
                    axis.scatter(x, row.measured.metrics['top1'], color=color, zorder=3)
        axis.set_xscale('log')
        axis.set_xlabel(label)
    for row in rows[:9]:
        point = (row.params or 0) / 1e6, float(row.result.metrics['top1'])
        name = row.result.model.removeprefix('MogaNet-')
        axes[0].annotate(name, point, xytext=(4, -10), textcoords='offset points', fontsize=8)
    axes[0].set_ylabel('top-1 accuracy on ImageNet-1K, %')
    axes[1].legend(fontsize=7, loc='lower right')
    figure.suptitle('Published (open) and measured with this code (filled)', fontsize=10)
    write_figure(path, figure, dpi=120)


def summary(rows: Sequence[Row]) -> str:
    """Summary of the comparison, in a few sentences."""
    configs = [row for row in rows if row.result.config]
    printed = [row for row in configs if row.agrees is not None]
    differing = [row.result.id for row in printed if not row.agrees]
    unexplained = [row.result.id for row in printed if not row.agrees and not row.result.exception]
    text = (
        f'{len(rows)} row{"" if len(rows) == 1 else "s"}, {len(configs)} with a config. '
        f'Sizes of {len(printed)} are published: '
        f'{len(printed) - len(differing)} agree (parameters to 0.3 %, multiply-adds to 2 %, plus rounding)'
    )
    if differing:
        text += f', {len(differing)} differ for a known reason, see the remark ({", ".join(differing)})'
    if unexplained:
        text += f'; differing WITHOUT a known reason: {", ".join(unexplained)}'
    return f'{text}. Accuracies measured: {sum(row.measured is not None for row in rows)}.'
