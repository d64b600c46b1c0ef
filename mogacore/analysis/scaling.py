"""Throughput of data-parallel training on many GPUs, modelled from measurements on one.

A step of N GPUs is a step of one and what of the gradients' all-reduce is not hidden behind the backward pass. A ring
all-reduce sends 2 (N - 1) / N of the gradients over each link, in 2 (N - 1) messages; the slowest link sets the pace,
which is that within a node as long as one node is enough, and the network else.

Source: Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009; the overlap with
the backward pass as in Li et al., PyTorch Distributed, arXiv 2006.15704.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mogacore.errors import UserError
from mogacore.files import write_figure

# Below this share of N times the throughput of one GPU, more GPUs are mostly heating.
SATURATED = 0.5


@dataclass(frozen=True)
class Cluster:
    """Links of a cluster, as measured.

    Args:
        gpus_per_node: GPUs that the fast link joins.
        node_bytes_per_s: Bandwidth between GPUs of one node, in each direction.
        network_bytes_per_s: Bandwidth of a node's network, in each direction.
        latency_s: Time of a message without content over the slower of the links in use.
    """

    gpus_per_node: int
    node_bytes_per_s: float
    network_bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self):
        if self.gpus_per_node < 1 or min(self.node_bytes_per_s, self.network_bytes_per_s) <= 0 or self.latency_s < 0:
            raise UserError(f'{self} does not fit: GPUs and bandwidths must be above 0, the latency not below')


@dataclass(frozen=True)
class Training:
    """A training step on one GPU, as measured.

    Args:
        step_s: Time of the step.
        batch_size: Images in it.
        gradient_bytes: Size of all gradients, 4 bytes a parameter in fp32.
        overlap_s: Time of the step during which gradients can travel while others are computed: at most that of the
            backward pass. 0 is none.
    """

    step_s: float
    batch_size: int
    gradient_bytes: float
    overlap_s: float = 0.0

    def __post_init__(self):
        if self.step_s <= 0 or self.batch_size < 1 or self.gradient_bytes < 0:
            raise UserError(f'{self} does not fit: time and batch must be above 0, gradients not below')
        if not 0 <= self.overlap_s <= self.step_s:
            raise UserError(f'overlap of {self.overlap_s} s does not fit: choose from 0 to the step, {self.step_s} s')


def read_benchmark(path: str | Path) -> tuple[float, int, float, str]:
    """Seconds of a training step, its images, bytes of the gradients, and the machine, from a benchmark's first row.

    Args:
        path: JSON of ``tools/benchmark.py --mode train``.

    Raises:
        UserError: If the file is no such benchmark.
    """
    try:
        with open(path) as file:
            report = json.load(file)
        row = report['measurements'][0]
        mode, found = report['mode'], (row['ms'] / 1e3, report['batch_size'], 4 * row['params'], report['machine'])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f'{path} is no file of tools/benchmark.py --json ({error!r})') from None
    if mode != 'train':
        raise UserError(f'{path} holds times of mode {mode!r}: measure with --mode train')
    return found


def all_reduce_s(num_gpus: int, num_bytes: float, cluster: Cluster) -> float:
    """Time of a ring all-reduce."""
    bandwidth = cluster.node_bytes_per_s
    if num_gpus > cluster.gpus_per_node:
        bandwidth = min(bandwidth, cluster.network_bytes_per_s)
    return 2 * (num_gpus - 1) * (num_bytes / num_gpus / bandwidth + cluster.latency_s)


def scale(training: Training, cluster: Cluster, counts: list[int]) -> list[dict]:
    """What each number of GPUs would do, with the same batch on each.

    Returns:
        A dict for each of ``counts``: ``gpus``, ``step_s``, ``all_reduce_s`` in all, ``exposed_s`` of it that lengthens
        the step, ``images_per_s``, and ``efficiency``: images per second and GPU over those of one GPU.

    Raises:
        UserError: If a count is below 1.
    """
    if min(counts) < 1:
        raise UserError(f'{min(counts)} GPUs do not fit: give 1 or more')
    rows = []
    for gpus in counts:
        reduce_s = all_reduce_s(gpus, training.gradient_bytes, cluster)
        exposed_s = max(0.0, reduce_s - training.overlap_s)
        step_s = training.step_s + exposed_s
        rows.append(
            dict(
                gpus=gpus,
                step_s=step_s,
                all_reduce_s=reduce_s,
                exposed_s=exposed_s,
                images_per_s=gpus * training.batch_size / step_s,
                efficiency=training.step_s / step_s,
            )
        )
    return rows


def saturation(rows: list[dict], threshold: float = SATURATED) -> int | None:
    """The first number of GPUs of :func:`scale` whose efficiency is below ``threshold``; None if none is."""
    return next((row['gpus'] for row in rows if row['efficiency'] < threshold), None)


def draw_scaling(curves: dict[str, list[dict]], title: str, path: str | Path) -> None:
    """Draw throughput over GPUs on logarithmic axes, with the line of perfect scaling and the points of saturation.

    Args:
        curves: Rows of :func:`scale` by the name of their curve; the first gives the perfect line.
        title: What was measured where.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axis = figure.subplots()
    first = next(iter(curves.values()))
    counts = [row['gpus'] for row in first]
    single = first[0]['images_per_s'] / first[0]['efficiency'] / first[0]['gpus']
    axis.plot(counts, [single * count for count in counts], color='grey', linewidth=0.8, label='perfect')
    for (name, rows), colour in zip(curves.items(), ('#4477aa', '#cc6677', '#228833', '#ccbb44') * 9, strict=False):
        axis.plot(counts, [row['images_per_s'] for row in rows], color=colour, marker='.', label=name)
        if limit := saturation(rows):
            row = next(row for row in rows if row['gpus'] == limit)
            axis.annotate(
                f'below {SATURATED:.0%} from {limit}',
                (limit, row['images_per_s']),
                xytext=(4, -14),
                textcoords='offset points',
                color=colour,
                fontsize=8,
            )
    axis.set_xscale('log', base=2)
    axis.set_yscale('log')
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set_xlabel('GPUs')
    axis.set_ylabel('images per second')
    axis.set_title(title, fontsize=9)
    axis.legend()
    write_figure(path, figure, dpi=120)
