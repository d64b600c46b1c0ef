"""Focal losses, with the interface of mmcv's extension; Lin et al., arXiv 1708.02002.

``input`` is (N, C), ``target`` (N,) class indices, ``weight`` (C,) class weights or empty. A target that is not a class
(background or ignored) has weight 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._table import full_precision, operator


def _weight_of(target: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    if weight.numel() == 0:
        return torch.ones_like(target, dtype=dtype)
    known = (target >= 0) & (target < len(weight))
    return torch.where(known, weight.to(dtype)[target.clamp(0, len(weight) - 1)], 1.0)


def _is_class(target: Tensor, classes: int) -> Tensor:
    return target[:, None] == torch.arange(classes, device=target.device)


@operator
def sigmoid_focal_loss_forward(input, target, weight, output, gamma, alpha):
    (x,) = full_precision(input)
    # Logarithms from the logits stay exact where the probability rounds to 0 or 1.
    positive = -alpha * torch.sigmoid(-x) ** gamma * F.logsigmoid(x)
    negative = -(1 - alpha) * torch.sigmoid(x) ** gamma * F.logsigmoid(-x)
    loss = torch.where(_is_class(target, x.size(1)), positive, negative)
    output.copy_(loss * _weight_of(target, weight, x.dtype)[:, None])


@operator
def sigmoid_focal_loss_backward(input, target, weight, grad_input, gamma, alpha):
    (x,) = full_precision(input)
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    positive = -alpha * q**gamma * (q - gamma * p * F.logsigmoid(x))
    negative = -(1 - alpha) * p**gamma * (gamma * q * F.logsigmoid(-x) - p)
    grad = torch.where(_is_class(target, x.size(1)), positive, negative)
    grad_input.copy_(grad * _weight_of(target, weight, x.dtype)[:, None])


@operator
def softmax_focal_loss_forward(input, target, weight, output, gamma, alpha):
    """Softmax focal loss; ``input`` is the softmax, and negative targets have no loss."""
    (softmax,) = full_precision(input)
    p = softmax.gather(1, target.clamp(min=0)[:, None])[:, 0]
    loss = -alpha * (1 - p) ** gamma * p.clamp(min=torch.finfo(p.dtype).tiny).log()
    output.copy_((loss * _weight_of(target, weight, p.dtype)).masked_fill(target < 0, 0))


@operator
def softmax_focal_loss_backward(input, target, weight, buff, grad_input, gamma, alpha):
    (softmax,) = full_precision(input)
    p = softmax.gather(1, target.clamp(min=0)[:, None])[:, 0]
    tiny = torch.finfo(p.dtype).tiny
    slope = gamma * (1 - p).clamp(min=tiny) ** (gamma - 1) * p * p.clamp(min=tiny).log()
    factor = alpha * (slope - (1 - p) ** gamma) * _weight_of(target, weight, p.dtype)
    factor = factor.masked_fill(target < 0, 0)
    buff.copy_(factor)
    grad_input.copy_(factor[:, None] * (_is_class(target, softmax.size(1)).to(p.dtype) - softmax))
