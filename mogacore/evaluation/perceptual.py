"""LPIPS, a perceptual distance of images, from the package lpips with weights that the user provides."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mogacore.checkpoint import load
from mogacore.errors import UserError

# Frames per forward pass, which bounds the memory.
CHUNK = 16
# Smallest side for which every layer of AlexNet has an output.
MIN_SIDE = 31


class PerceptualDistance:
    """LPIPS of frames: AlexNet with the linear layers, version 0.1, of the package lpips.

    It runs on the GPU if there is one.

    Args:
        weights: Weight file of torchvision's AlexNet, trained on ImageNet. The package contains the linear layers only
            and would download the rest.

    Raises:
        UserError: If the package is not installed, or the file is missing or contains other weights.

    Source: ``openstl/core/metrics.py`` of OpenSTL for the network and the range of its inputs.
    """

    def __init__(self, weights: str | Path):
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.network = _build(weights).to(self.device)

    def __call__(self, predicted: np.ndarray, target: np.ndarray) -> float:
        """Average over the frames; predictions are clipped to 0..1.

        Args:
            predicted: (T, C, H, W), C = 1 (gray, used for all three channels) or 3 (RGB), in 0..1.
            target: As ``predicted``.

        Raises:
            UserError: If the frames are neither gray nor RGB, or smaller than 31 x 31.
        """
        channels, height, width = target.shape[1:]
        if channels not in (1, 3) or min(height, width) < MIN_SIDE:
            raise UserError(
                f'lpips is not defined for frames of {channels} x {height} x {width} (C x H x W): use 1 or 3 channels '
                f'of at least {MIN_SIDE} x {MIN_SIDE} pixels, or remove lpips from metric'
            )
        pairs = np.stack([predicted.clip(0, 1), target]).astype(np.float32)
        with torch.no_grad():
            distances = [
                self.network(*torch.from_numpy(pairs[:, start : start + CHUNK]).to(self.device), normalize=True)
                for start in range(0, len(target), CHUNK)
            ]
        return float(torch.cat(distances).double().mean())


def _build(weights: str | Path) -> nn.Module:
    try:
        from lpips import LPIPS
    except ModuleNotFoundError as error:
        if error.name != 'lpips':
            raise
        raise UserError('the metric lpips needs the package lpips: run "pip install lpips"') from None
    state_dict = load(weights)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # lpips passes torchvision a deprecated argument
        network = LPIPS(net='alex', pnet_rand=True, verbose=False)
    # The package splits torchvision's "features" into slices and keeps the layer numbers: slice2.3.weight.
    names = {name: f'features.{name.partition(".")[2]}' for name in network.net.state_dict()}
    own = network.net.state_dict()
    unfit = [
        file for name, file in names.items() if file not in state_dict or state_dict[file].shape != own[name].shape
    ]
    if unfit:
        raise UserError(
            f'lpips_weights {weights} are not the weights of AlexNet, {unfit[0]} is missing or has another shape: '
            "use torchvision's file alexnet-owt-7be5be79.pth"
        )
    network.net.load_state_dict({name: state_dict[file] for name, file in names.items()})
    return network
