"""The machine that a check ran on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

import torch

from mogacore.engine.devices import describe_machine
from mogacore.version import __version__

# Fields of nvidia-smi, which comes with the driver, and their names in the report.
QUERY = {
    'driver_version': 'driver',
    'clocks.max.sm': 'largest clock (MHz)',
    'clocks.max.memory': 'largest memory clock (MHz)',
    'power.limit': 'power limit (W)',
    'persistence_mode': 'persistence mode',
}


def describe(device: str) -> dict[str, str | int | float]:
    """Facts about device and software, by name; what cannot be found out is left out."""
    facts: dict[str, str | int | float] = {
        'device': describe_machine(device).rpartition(', torch ')[0],
        'cores': os.cpu_count() or 0,
        'Python': platform.python_version(),
        'torch': torch.__version__,
        'mogacore': __version__,
    }
    try:
        import torchvision

        facts['torchvision'] = torchvision.__version__
    except (ImportError, RuntimeError):  # a version that does not fit torch raises the latter
        pass
    if torch.device(device).type != 'cuda':
        return facts
    properties = torch.cuda.get_device_properties(device)
    facts |= {
        'capability': '.'.join(map(str, torch.cuda.get_device_capability(device))),
        'memory (GiB)': round(properties.total_memory / 2**30, 1),
        'multiprocessors': properties.multi_processor_count,
        'GPUs': torch.cuda.device_count(),
        'CUDA of torch': str(torch.version.cuda or torch.version.hip),
        'cuDNN': str(torch.backends.cudnn.version()),
    }
    return facts | query_driver(str(getattr(properties, 'uuid', '')))


def query_driver(uuid: str) -> dict[str, str]:
    """What nvidia-smi says of the GPU with this id; nothing if it is missing or fails."""
    program = shutil.which('nvidia-smi')
    if program is None:
        return {}
    command = [program, f'--query-gpu={",".join(QUERY)}', '--format=csv,noheader,nounits']
    if uuid:
        command += ['-i', uuid if uuid.startswith(('GPU-', 'MIG-')) else f'GPU-{uuid}']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in done.stdout.partition('\n')[0].split(',')]
    if len(values) != len(QUERY):
        return {}
    return {name: value for name, value in zip(QUERY.values(), values, strict=True) if not value.startswith('[')}
