"""Throughput of data-parallel training on many GPUs, modeled from measurements on one GPU.

A step on N GPUs takes the time of a step on one GPU, plus the part of the gradients' all-reduce that is not hidden
behind the backward pass. A ring all-reduce sends 2 (N - 1) / N of the gradients over each link, in 2 (N - 1) messages.
The slowest link sets the pace: the link within a node if one node is enough, else the network.

Source: Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009; overlap with the
backward pass: Li et al., PyTorch Distributed, arXiv 2006.15704.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mogacore.errors import UserError
from mogacore.files import write_figure

# Below this efficiency (throughput over N times that of one GPU), scaling is inefficient.
SATURATED = 0.5


@dataclass(frozen=True)
class Cluster:
    """Measured links of a cluster.

    Args:
        gpus_per_node: GPUs connected by the fast link.
        node_bytes_per_s: Bandwidth between GPUs of one node, per direction.
        network_bytes_per_s: Bandwidth of a node's network, per direction.
        latency_s: Latency of a message over the slowest link in use.

    Raises:
        UserError: If a number is out of range.
    """

    gpus_per_node: int
    node_bytes_per_s: float
    network_bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self):
        if self.gpus_per_node < 1 or min(self.node_bytes_per_s, self.network_bytes_per_s) <= 0 or self.latency_s < 0:
            raise UserError(f'{self} is invalid: GPUs and bandwidths must be above 0, the latency at least 0')


@dataclass(frozen=True)
class Training:
    """A measured training step on one GPU.

    Args:
        step_s: Time of the step.
        batch_size: Images per step.
        gradient_bytes: Size of all gradients, 4 bytes per parameter in fp32.
        overlap_s: Part of the step during which gradients can be sent while others are computed, at most the time of
            the backward pass; 0 is no overlap.

    Raises:
        UserError: If a number is out of range.
    """

    step_s: float
    batch_size: int
    gradient_bytes: float
    overlap_s: float = 0.0

    def __post_init__(self):
        if self.step_s <= 0 or self.batch_size < 1 or self.gradient_bytes < 0:
            raise UserError(f'{self} is invalid: time and batch size must be above 0, gradient bytes at least 0')
        if not 0 <= self.overlap_s <= self.step_s:
            raise UserError(
                f'overlap of {self.overlap_s} s is invalid: choose from 0 to {self.step_s} s (the whole step)'
            )


def read_benchmark(path: str | Path) -> tuple[float, int, float, str]:
    """Read the first row of a benchmark.

    Args:
        path: JSON of ``tools/benchmark.py --mode train``.

    Returns:
        Seconds per training step, batch size, bytes of the gradients in fp32, and the machine.

    Raises:
        UserError: If the file is not such a benchmark.
    """
    try:
        with open(path) as file:
            report = json.load(file)
        row = report['measurements'][0]
        mode, found = report['mode'], (row['ms'] / 1e3, report['batch_size'], 4 * row['params'], report['machine'])
    except (OSError, ValueError, KeyError, IndexError, RecursionError, TypeError) as error:
        raise UserError(f'{path} is not a file of tools/benchmark.py --json ({error!r}): write one with it') from None
    if mode != 'train':
        raise UserError(f'{path} has times of mode {mode!r}: measure with --mode train')
    return found


def all_reduce_s(num_gpus: int, num_bytes: float, cluster: Cluster) -> float:
    """Seconds of a ring all-reduce of ``num_bytes``."""
    bandwidth = cluster.node_bytes_per_s
    if num_gpus > cluster.gpus_per_node:
        bandwidth = min(bandwidth, cluster.network_bytes_per_s)
    return 2 * (num_gpus - 1) * (num_bytes / num_gpus / bandwidth + cluster.latency_s)


def scale(training: Training, cluster: Cluster, counts: list[int]) -> list[dict]:
    """Predict the throughput for each number of GPUs, with a constant batch per GPU.

    Args:
        training: The step on one GPU.
        cluster: The links.
        counts: Numbers of GPUs.

    Returns:
        One dict per count: ``gpus``; ``step_s``; ``all_reduce_s``, the whole all-reduce; ``exposed_s``, the part of it
        that lengthens the step; ``images_per_s``; ``efficiency``, the throughput per GPU relative to one GPU.

    Raises:
        UserError: If a count is below 1.
    """
    if min(counts) < 1:
        raise UserError(f'{min(counts)} GPUs are invalid: give at least 1')
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
    """Smallest number of GPUs in the rows of :func:`scale` with an efficiency below ``threshold``; None if none."""
    return next((row['gpus'] for row in rows if row['efficiency'] < threshold), None)


def draw_scaling(curves: dict[str, list[dict]], title: str, path: str | Path) -> None:
    """Draw throughput over GPUs on logarithmic axes, with the line of ideal scaling and the points of saturation.

    Args:
        curves: Rows of :func:`scale`, by name of the curve; the first defines the ideal line.
        title: Title of the figure.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axis = figure.subplots()
    first = next(iter(curves.values()))
    counts = [row['gpus'] for row in first]
    single = first[0]['images_per_s'] / first[0]['efficiency'] / first[0]['gpus']
    axis.plot(counts, [single * count for count in counts], color='gray', linewidth=0.8, label='ideal')
    for (name, rows), color in zip(curves.items(), ('#4477aa', '#cc6677', '#228833', '#ccbb44') * 9, strict=False):
        axis.plot(counts, [row['images_per_s'] for row in rows], color=color, marker='.', label=name)
        if limit := saturation(rows):
            row = next(row for row in rows if row['gpus'] == limit)
            axis.annotate(
                f'below {SATURATED:.0%} from {limit}',
                (limit, row['images_per_s']),
                xytext=(4, -14),
                textcoords='offset points',
                color=color,
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
