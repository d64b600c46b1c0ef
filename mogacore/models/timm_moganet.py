"""MogaNet in timm: ``timm.create_model('moganet_tiny')`` builds the model of :func:`mogacore.create_model`.

``import mogacore`` calls :func:`register`, which needs timm 0.9 or later, once timm has been imported.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from mogacore.checkpoint import HUB_SCHEME, SCHEME
from mogacore.errors import UserError
from mogacore.published import official_weights
from mogacore.published.archs import ARCHS
from mogacore.published.pretrained import released

from .factory import PREFIX, create_model, list_models

__all__: list[str] = []  # timm adds the names of the models
default_cfgs: dict[str, Any] = {}  # read by timm: name to its pretrained_cfg of each tag


def register() -> None:
    """Add every model and the files of the MogaNet release to timm's registry; warns if timm is too old."""
    try:
        from timm.models import generate_default_cfgs, register_model
    except ImportError:
        warnings.warn('timm < 0.9 cannot create MogaNet: use mogacore.create_model, or update timm', stacklevel=2)
        return
    cfgs: dict[str, Any] = {f'{PREFIX}{arch}.{cfg["tag"]}': cfg for arch in ARCHS for cfg in released(arch)}
    default_cfgs.update(generate_default_cfgs(cfgs))
    for name in list_models():
        create: Any = partial(_create, name)
        create.__name__, create.__module__ = name, __name__
        setattr(sys.modules[__name__], name, create)
        register_model(create)


def _create(
    name: str,
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict | None = None,
    cache_dir: str | Path | None = None,
    pretrained_model_args: dict | None = None,
    **kwargs,
) -> nn.Module:
    """The function that timm calls.

    Args:
        name: Model.
        pretrained: Load the weights that ``pretrained_cfg`` describes.
        pretrained_cfg: timm's tag, dict or object; None for the default of the model.
        pretrained_cfg_overlay: Entries that replace those of ``pretrained_cfg``.
        cache_dir: Not supported, since downloads are those of mogacore.
        pretrained_model_args: Settings of a model on the hub, which are in ``kwargs``, too.
        **kwargs: Settings of :func:`create_model`.

    Raises:
        UserError: As in :func:`create_model`.
    """
    from timm.models import resolve_pretrained_cfg

    if cache_dir is not None:
        raise UserError('cache_dir is not supported for MogaNet: set the environment variable TORCH_HOME or HF_HOME')
    cfg = resolve_pretrained_cfg(name, pretrained_cfg=pretrained_cfg, pretrained_cfg_overlay=pretrained_cfg_overlay)
    about = cfg.to_dict()
    kwargs.setdefault('num_classes', cfg.num_classes)
    if 'in_channels' not in kwargs:
        kwargs.setdefault('in_chans', cfg.input_size[0])
    settings = (
        {'checkpoint': _source(about), 'new_head': kwargs['num_classes'] != cfg.num_classes} if pretrained else {}
    )
    model = create_model(name, **settings, **kwargs)
    model.pretrained_cfg = model.default_cfg = about
    return model


def _source(about: dict) -> str | Path | dict:
    """What ``checkpoint`` of :func:`create_model` is for a pretrained_cfg of timm."""
    if about.get('state_dict'):
        return about['state_dict']
    if about.get('file') and about.get('source') == 'local-dir':
        files = [Path(about['file'], name) for name in ('model.safetensors', 'pytorch_model.bin')]
        return next((file for file in files if file.is_file()), files[0])
    if about.get('file'):
        return about['file']
    if about.get('hf_hub_id'):
        file = about.get('hf_hub_filename')
        return f'{HUB_SCHEME}{about["hf_hub_id"]}' + (f'/{file}' if file else '')
    if not about.get('url'):
        raise UserError(f'{about.get("architecture")} has no weights for its pretrained_cfg: pass pretrained=False')
    names = {address: name for name, address in official_weights().items()}
    return SCHEME + names[about['url']] if about['url'] in names else about['url']
