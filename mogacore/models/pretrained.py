"""Load trained weights into a backbone, as specified by ``init_cfg`` in a config."""

from __future__ import annotations

from mmengine.runner import CheckpointLoader
from torch import nn

from mogacore.checkpoint import check_gate, load, load_into, report_choice, weights_of


def load_pretrained(network: nn.Module, checkpoint: str, prefix: str | None = None) -> None:
    """Strictly load the backbone from any published file.

    Args:
        network: A MogaNet.
        checkpoint: Path, URL or ``mogacore://`` name. 'official' means ``mogacore://moganet_tiny`` for the size tiny:
            the file from which the published detectors, segmentors and pose models were trained.
        prefix: Only load the keys with this prefix, from a file of a larger model.

    Raises:
        CheckpointError: If the weights do not match.
        UserError: If 'official' is used with a custom size, the file cannot be read, or it is a published file of the
            other gate function.
    """
    checkpoint = weights_of(network.arch_name and f'moganet_{network.arch_name}', checkpoint)
    check_gate(network, checkpoint, 'set {setting} of the backbone')
    container = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    report_choice(container, checkpoint)
    weights = load(container)
    if prefix:
        weights = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    load_into(network, weights, advice='or remove init_cfg')
