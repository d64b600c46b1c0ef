from types import SimpleNamespace

import pytest
import torch

from mogacore.analysis.gpu import machine, speed
from mogacore.analysis.gpu.results import Skip
from mogacore.analysis.gpu.speed import Case, cases, measure
from mogacore.analysis.gpu.subjects import Plan


@pytest.fixture
def limited(monkeypatch):
    """Function that sets the number of images that fit into memory."""

    def limit(largest):
        right = speed._measure

        def measured(case, plan, batch_size, size):
            if batch_size > largest:
                raise torch.cuda.OutOfMemoryError('CUDA out of memory')
            return right(case, plan, batch_size, 32)

        monkeypatch.setattr(speed, '_measure', measured)

    return limit


@pytest.mark.parametrize('largest, batch_size, note', [(8, 4, ''), (2, 2, 'out of memory at 4 images')])
def test_batches_are_halved_until_they_fit(limited, largest, batch_size, note):
    limited(largest)
    row = measure(Case('moganet_xtiny', 'test'), Plan('cpu', quick=True))
    assert (row['batch_size'], row['note']) == (batch_size, note)
    assert row['images_per_s'] == pytest.approx(1e3 * batch_size / row['ms'])


def test_without_memory_for_one_image_the_case_is_skipped(limited):
    limited(0)
    with pytest.raises(Skip, match='out of memory with one image'):
        measure(Case('moganet_xtiny', 'train'), Plan('cpu', quick=True))


def test_missing_torchvision_skips_its_networks(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torchvision.models', None)
    with pytest.raises(Skip, match='torchvision, which is not installed'):
        measure(Case('swin_t', 'test'), Plan('cpu', quick=True))


def test_compiling_without_a_compiler_is_skipped(monkeypatch):
    monkeypatch.setattr('shutil.which', lambda name: None)
    with pytest.raises(Skip, match='needs a C compiler'):
        measure(Case('moganet_xtiny', 'test', compiled=True), Plan('cpu'))


@pytest.mark.parametrize('capability, amp', [((9, 0), 'bf16'), ((8, 0), 'bf16'), ((7, 5), 'fp16')])
def test_the_most_important_cases_come_first(monkeypatch, capability, amp):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    found = cases(Plan('cuda'))
    assert len(set(found)) == len(found)
    first = [(case.network, case.mode) for case in found[:10]]
    networks = ('moganet_small', 'moganet_base', 'convnext_tiny', 'convnext_small', 'swin_t')
    assert first == [(network, mode) for network in networks for mode in ('test', 'train')]
    assert all((case.precision, case.compiled, case.channels_last) == (amp, False, True) for case in found[:10])
    assert not any(case.compiled for case in found[:20])
    assert {case.network for case in found if case.compiled} >= {'moganet_small', 'moganet_base', 'convnext_tiny'}
    assert any(not case.channels_last for case in found)
    # What is not compiled fits into the time that the other parts leave.
    assert sum(case.estimate_s for case in found if not case.compiled) <= 8 * 60


def test_training_changes_the_weights_and_inference_does_not(monkeypatch):
    models = []
    right = speed._build
    monkeypatch.setattr(speed, '_build', lambda name: models.append(right(name)) or models[-1])
    for mode in ('test', 'train'):
        torch.manual_seed(0)
        before = right('moganet_xtiny').head.weight
        measure(Case('moganet_xtiny', mode), Plan('cpu', quick=True))
        assert torch.equal(models[-1].head.weight, before) == (mode == 'test')


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Function that puts a program of this name, which prints the text, on the path."""

    def make(text, code=0):
        script = tmp_path / 'nvidia-smi'
        script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\necho "{text}"\nexit {code}\n')
        script.chmod(0o755)
        monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
        return tmp_path / 'arguments'

    return make


def test_driver_and_limits_come_from_nvidia_smi(nvidia_smi):
    arguments = nvidia_smi('580.65.06, 1980, 2619, 700.00, Enabled')
    assert machine.query_driver('12-34') == {
        'driver': '580.65.06', 'largest clock (MHz)': '1980', 'largest memory clock (MHz)': '2619',
        'power limit (W)': '700.00', 'persistence mode': 'Enabled',
    }  # fmt: skip
    assert '-i GPU-12-34' in arguments.read_text()


@pytest.mark.parametrize(
    'text, code, expected',
    [('580.65.06, 1980, 2619, [N/A], [N/A]', 0, 3), ('No devices were found', 0, 0), ('', 9, 0)],
)
def test_what_nvidia_smi_does_not_know_is_left_out(nvidia_smi, text, code, expected):
    nvidia_smi(text, code)
    assert len(machine.query_driver('')) == expected


def test_facts_of_a_gpu(monkeypatch):
    properties = SimpleNamespace(total_memory=80 * 2**30, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: properties)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'GPU of the test')
    monkeypatch.setattr(machine, 'query_driver', lambda uuid: {'driver': '1.2'})
    facts = machine.describe('cuda')
    assert facts['device'] == 'GPU of the test' and facts['driver'] == '1.2'
    assert (facts['capability'], facts['memory (GiB)'], facts['multiprocessors']) == ('9.0', 80.0, 132)
