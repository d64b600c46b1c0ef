"""The table of operators, and helpers shared by them."""

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor

OPERATORS: dict[str, Callable] = {}


def operator(function: Callable) -> Callable:
    """Register ``function`` in ``OPERATORS``; it has the signature and the in-place results of ``mmcv._ext``."""
    OPERATORS[function.__name__] = function
    return function


def full_precision(*tensors: Tensor) -> list[Tensor]:
    """Convert tensors to the type of the computation: float64 if any of them is float64, else float32."""
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    return [tensor.to(dtype) for tensor in tensors]


def gradients(function: Callable, inputs: list[Tensor], grad_output: Tensor) -> tuple[Tensor, ...]:
    """Gradients of ``function(*inputs)`` with respect to each input, by automatic differentiation."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        return torch.autograd.grad(function(*inputs), inputs, grad_output.to(inputs[0].dtype))


@operator
def get_compiler_version() -> str:
    """Shown by mmcv in the description of the environment."""
    return f'none, operators of torchvision {torchvision.__version__}'


@operator
def get_compiling_cuda_version() -> str:
    return torch.version.cuda or 'not available'
