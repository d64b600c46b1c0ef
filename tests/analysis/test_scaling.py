import json
import runpy
import sys

import pytest
from conftest import ROOT

from mogacore.analysis.scaling import Cluster, Training, all_reduce_s, saturation, scale
from mogacore.errors import UserError

# 4 GPUs per node at 10 GB/s, nodes at 1 GB/s, 1 ms per message.
CLUSTER = Cluster(gpus_per_node=4, node_bytes_per_s=10e9, network_bytes_per_s=1e9, latency_s=1e-3)


@pytest.mark.parametrize(
    'gpus, seconds',
    [
        (1, 0.0),  # no communication
        (2, 2 * (0.05 / 10 + 0.001)),  # two messages of half of 0.1 GB
        (4, 6 * (0.025 / 10 + 0.001)),
        (8, 14 * (0.0125 / 1 + 0.001)),  # over the network
    ],
)
def test_ring_all_reduce_by_hand(gpus, seconds):
    assert all_reduce_s(gpus, 0.1e9, CLUSTER) == pytest.approx(seconds)


def test_throughput_by_hand():
    """A step of 0.1 s with 32 images: 8 GPUs wait 0.189 s for gradients, or 0.139 s if 0.05 s are hidden."""
    exposed, hidden = (scale(Training(0.1, 32, 0.1e9, overlap_s), CLUSTER, [1, 4, 8]) for overlap_s in (0.0, 0.05))
    assert [row['images_per_s'] for row in exposed] == pytest.approx([320, 128 / 0.121, 256 / 0.289])
    assert [row['images_per_s'] for row in hidden] == pytest.approx([320, 1280, 256 / 0.239])
    assert [row['efficiency'] for row in hidden] == pytest.approx([1, 1, 0.1 / 0.239])
    assert [row['exposed_s'] for row in hidden] == pytest.approx([0, 0, 0.139])
    assert saturation(exposed) == saturation(hidden) == 8
    assert saturation(exposed, threshold=0.9) == 4
    assert saturation(exposed, threshold=0.1) is None


def test_without_latency_the_time_has_a_limit():
    """For any number of GPUs: twice the gradients over the slowest link."""
    cluster = Cluster(8, 100e9, 10e9)
    assert all_reduce_s(1024, 1e9, cluster) == pytest.approx(0.2 * 1023 / 1024)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: Cluster(8, 0, 1e9), 'bandwidths must be above 0'),
        (lambda: Training(0.0, 1, 1), 'time and batch size must be above 0'),
        (lambda: Training(0.1, 1, 1, overlap_s=0.2), 'overlap of 0.2 s is invalid'),
        (lambda: scale(Training(0.1, 1, 1), CLUSTER, [0]), '0 GPUs are invalid'),
    ],
)
def test_invalid_measurements_are_reported(make, message):
    with pytest.raises(UserError, match=message):
        make()


LINKS = ['--gpus-per-node', '4', '--node-gbytes', '10', '--network-gbits', '8', '--latency-us', '1000']


def call(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['scaling.py', *map(str, args), *LINKS])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools' / 'scaling.py'), run_name='__main__')
    return leave.value.code


def test_tool_models_a_benchmark_and_draws_it(tmp_path, monkeypatch, capsys):
    measured = dict(ms=100.0, params=25_000_000)
    report = dict(mode='train', batch_size=32, machine='a GPU', measurements=[measured])
    (tmp_path / 'b.json').write_text(json.dumps(report))
    out = ['--json', tmp_path / 's.json', '--plot', tmp_path / 's.png', '--max-gpus', '8', '--backward-share', '0.5']
    assert not call(monkeypatch, '--benchmark', tmp_path / 'b.json', *out)
    curves = json.loads((tmp_path / 's.json').read_text())['curves']
    assert [row['gpus'] for row in curves['overlapped with it']] == [1, 2, 4, 8]
    assert curves['overlapped with it'][-1]['images_per_s'] == pytest.approx(256 / 0.239)
    assert 'below 50% from 8 GPUs' in capsys.readouterr().out
    assert (tmp_path / 's.png').stat().st_size > 5000


@pytest.mark.parametrize(
    'args, message',
    [
        (['--step-ms', '3'], 'give --benchmark FILE, or all of --step-ms, --batch-size and --gradient-mb'),
        (['--benchmark', 'none.json'], 'none.json is not a file of tools/benchmark.py'),
    ],
)
def test_missing_measurements_are_reported(args, message, monkeypatch, capsys):
    assert call(monkeypatch, *args) == 2
    assert message in capsys.readouterr().err
