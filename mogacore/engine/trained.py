"""Trained models: that of a config with the weights of a file."""

from __future__ import annotations

from typing import cast

from mmengine.config import Config
from mmengine.model import BaseModel

from mogacore.checkpoint import CheckpointError, check_gate, check_source, load_into, read_any, report_choice
from mogacore.datasets.checks import Expected
from mogacore.errors import UserError

from .check_classes import check_mean
from .config import build_model, replace_sync_bn
from .devices import choose_device
from .explain import user_errors

BACKBONE_ADVICE = 'pass --cfg-options model.backbone.{setting}'  # of the commands that take a config


def load_trained(cfg: Config, checkpoint: str, device: str | None = None) -> tuple[BaseModel, dict]:
    """Build the model of a config, in eval mode, with the weights of a file.

    Args:
        cfg: Loaded config.
        checkpoint: Weight file: path, URL or name; it must match the model exactly.
        device: torch device; None for a GPU if available.

    Returns:
        The model, and the whole content of the file.

    Raises:
        UserError: If the config's model cannot be built, or the file does not exist, is malformed, or does not match
            the model.
    """
    device = choose_device(device)
    check_mean(cfg, Expected.of(cfg.model).in_channels)
    check_source(checkpoint)
    container = read_any(checkpoint)  # before the model, which takes longer to build
    report_choice(container, checkpoint)
    replace_sync_bn(cfg.model)
    model = _build(cfg)
    check_gate(model, checkpoint, BACKBONE_ADVICE)
    try:
        load_into(model, container, advice='')
    except CheckpointError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from None
    return model.to(device).eval(), container


def _build(cfg: Config) -> BaseModel:
    """The model of a config; a setting that a part of it does not have is a user error."""
    try:
        with user_errors():
            return cast(BaseModel, build_model(cfg))  # the models of all task libraries
    except TypeError as error:
        text = ' '.join(str(error).split())
        if 'unexpected keyword argument' not in text:
            raise
        raise UserError(f'the model of the config cannot be built ({text}): correct or remove the setting') from error
