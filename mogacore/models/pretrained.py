"""Trained weights for a backbone, as ``init_cfg`` of a config names them."""

from __future__ import annotations

from mmengine.runner import CheckpointLoader
from torch import nn

from mogacore.checkpoint import SCHEME, load, load_into
from mogacore.errors import UserError


def load_pretrained(network: nn.Module, checkpoint: str, prefix: str | None = None) -> None:
    """Load the trunk of any published file, strictly.

    Args:
        network: A MogaNet.
        checkpoint: Path, address or ``mogacore://`` name. 'official' is ``mogacore://moganet_tiny`` for the size tiny:
            the file that the published detectors, segmentors and pose models start from.
        prefix: Of a larger model's file, load the keys that begin with this prefix.

    Raises:
        CheckpointError: If the weights do not fit.
        UserError: If 'official' is asked of a custom size, or the file cannot be read.
    """
    if checkpoint == 'official':
        if network.arch_name is None:
            raise UserError("init_cfg checkpoint 'official' needs a published size: give arch by name")
        checkpoint = f'{SCHEME}moganet_{network.arch_name}'
    weights = load(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
    if prefix:
        weights = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    load_into(network, weights)
