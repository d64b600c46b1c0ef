"""The device that a tool runs on."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.device import get_device

from mogacore.errors import UserError


def choose_device(name: str | None = None) -> str:
    """The device of ``--device``, after a check that it works; by default a GPU if available, otherwise the CPU.

    Raises:
        UserError: If torch does not know the device, or this machine does not have it.
    """
    name = name or get_device()
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no common type for these
        reason = str(error).strip().partition('\n')[0]
        raise UserError(f'--device {name} is not available ({reason}): use another, such as cpu, or omit it') from None
    return name


def describe_machine(device: str) -> str:
    """Processor or GPU, threads and torch version, in one line."""
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
        name = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), 'CPU')
        name += f', {torch.get_num_threads()} threads'
    return f'{name}, torch {torch.__version__}'
