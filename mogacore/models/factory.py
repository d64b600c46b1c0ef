"""Create models by name, without any task library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from torch import nn

from mogacore.checkpoint import HUB_SCHEME, SCHEME, hub_config, load_into, load_official, official_address, weights_of
from mogacore.errors import UserError
from mogacore.kinds import checks_arguments
from mogacore.published.archs import ARCHS
from mogacore.published.pretrained import FIRST_CONV, pretrained_cfg

from .classifier import MogaNetClassifier
from .features import stage_indices
from .moganet import MogaNet

PREFIX = 'moganet_'
# Settings that the config of a model on the Hugging Face hub may contain.
HUB_SETTINGS = (
    'num_classes', 'in_chans', 'global_pool', 'attn_force_fp32', 'gate_fp32', 'attn_dw_dilation', 'attn_channel_split',
    'attn_final_dilation', 'stem_strides', 'layer_scale_init', 'drop_rate', 'drop_path_rate',
)  # fmt: skip


def list_models() -> list[str]:
    """Names that :func:`create_model` accepts, from small to large."""
    return [PREFIX + arch for arch in ARCHS]


@checks_arguments()
def create_model(
    name: str,
    num_classes: int | None = None,
    checkpoint: str | Path | dict | None = None,
    features_only: bool = False,
    new_head: bool = False,
    in_chans: int | None = None,
    out_indices: int | Sequence[int] | None = None,
    **kwargs,
) -> nn.Module:
    """Create a MogaNet by name. ``docs/classification.md`` compares its settings and methods with those of timm.

    Args:
        name: One of :func:`list_models`; or ``hf-hub:USER/NAME[@REVISION]`` for a model of the Hugging Face hub, with
            its weights and the settings in its ``config.json``, which the arguments here override.
        num_classes: Number of logits; 0 returns the pooled features. None for 1000, or for that of the hub's model.
        checkpoint: Weight file, which must match the model exactly, see :func:`mogacore.checkpoint.load_into`, except
            that the weights of the first convolution are adapted to ``in_chans``, see
            :func:`mogacore.checkpoint.load.adapt_channels`; 'official' for the paper's weights of this size;
            ``mogacore://NAME`` for any published file; or ``hf-hub:USER/NAME[@REVISION][/FILE]``. Files are downloaded
            on first use. If a published file has both raw and averaged weights, those behind the published accuracy
            are loaded.
        features_only: Omit the classifier and return the tuple of normalized stage maps, described by the attribute
            ``feature_info``.
        new_head: Load everything but the classifier, which keeps its initial values: to fine-tune on other classes.
        in_chans: Channels of the input images, 3 by default; ``in_channels`` is the same setting.
        out_indices: With ``features_only``, the stages in 0..3 whose maps are returned; negative ones count from the
            last, and a number n means the last n. None for all.
        **kwargs: Further settings:

            * ``global_pool`` of the classifier: 'avg' (default, published), 'max', 'avgmax', or '' with
              ``num_classes=0`` to return the map;
            * ``frozen_stages``: number of the last stage without training; -1 (default) freezes nothing, 0 stage 0,
              1 two stages, 2 three, 3 all four. A frozen stage comprises its patch embedding, blocks and norm, gets no
              gradients and stays in eval mode; the classifier is always trained;
            * ``norm_eval``: True keeps every BatchNorm in eval mode during training, with its running statistics; its
              weight and bias are trained;
            * ``drop_path_rate``: None (default) for the published rate of the size, 0 for none;
            * ``drop_rate``: dropout in the feed-forward networks, 0 by default; there is none before the classifier;
            * ``attn_force_fp32``: the gate function of the weights: False (default) for the MogaNet release, True for
              OpenMixup;
            * ``gate_fp32``: True to compute the gate in fp32 under AMP;
            * ``with_cp``: True to recompute the blocks in the backward pass, which saves memory; the method
              ``set_grad_checkpointing`` changes it later;
            * ``stem_strides``: strides of the two stem convolutions, (2, 2) by default, (1, 1) for images of 32 px;
            * ``norm_cfg``: type of all norms: ``dict(type='BN' | 'SyncBN' | 'GN')``;
            * ``layer_scale_init``, ``attn_dw_dilation``, ``attn_channel_split``, ``attn_final_dilation``,
              ``channels_last_out``: see :class:`MogaNet`.

    Returns:
        A model in training mode that maps (B, in_chans, H, W) images to (B, num_classes) logits or to the tuple of
        maps. Its ``pretrained_cfg`` describes the weights in timm's terms: mean, std, input size, crop, interpolation.

    Raises:
        UserError: If the name is unknown, a setting is invalid, the weight file does not match or cannot be downloaded,
            or its gate function is not the one selected by ``attn_force_fp32``.
    """
    about: dict = {}
    if name.startswith(HUB_SCHEME):
        if checkpoint is not None:
            raise UserError(f"{name} has its own weights: omit checkpoint, or pass a model's name instead")
        checkpoint = name
        name, settings, about = _from_hub(name)
        saved = (settings.pop('num_classes', None), settings.pop('in_chans', None))
        num_classes = saved[0] if num_classes is None else num_classes
        in_chans = saved[1] if in_chans is None and 'in_channels' not in kwargs else in_chans
        if features_only:
            settings.pop('global_pool', None)
        kwargs = settings | kwargs
    if name not in list_models():
        raise UserError(f'model {name!r} is unknown: choose from {", ".join(list_models())}')
    arch = name.removeprefix(PREFIX)
    num_classes = 1000 if num_classes is None else num_classes
    if in_chans is not None and kwargs.setdefault('in_channels', in_chans) != in_chans:
        raise UserError(f'in_chans {in_chans} and in_channels {kwargs["in_channels"]} differ: give one of them')
    model: MogaNet
    if features_only:
        kwargs['out_indices'] = stage_indices(out_indices, 4, 'out_indices')
        model = MogaNet(arch, **kwargs)
    elif out_indices is not None:
        raise UserError(f'out_indices {out_indices} has no effect on a classifier: set features_only=True as well')
    else:
        model = MogaNetClassifier(num_classes, arch=arch, **kwargs)
    checkpoint = weights_of(name, checkpoint)
    if checkpoint is not None:
        _load(model, checkpoint, new_head)
    model.pretrained_cfg = model.default_cfg = pretrained_cfg(arch, _file_name(checkpoint)) | about
    return model


def _load(model: MogaNet, checkpoint: str | Path | dict, new_head: bool) -> None:
    initial = {key: value.clone() for key, value in model.state_dict().items() if key.startswith('head.')}
    settings: dict = dict(advice='', first_conv=FIRST_CONV)
    if new_head:
        settings |= dict(allow_missing=['head.*'], allow_unexpected=['head.*'])
    elif isinstance(model, MogaNetClassifier) and model.num_classes != 1000:
        settings['advice'] = 'or pass new_head=True to load everything but the classifier'
    load_named(model, checkpoint, **settings)
    if new_head:
        model.load_state_dict(initial, strict=False)  # a head of the same shape has been loaded, too


def load_named(model: nn.Module, checkpoint: str | Path | dict, **settings) -> None:
    """Load the weights of a model that :func:`create_model` has created.

    Args:
        model: The model.
        checkpoint: A path, address, name or container, see :func:`create_model`, but not 'official'.
        **settings: Further settings of :func:`mogacore.checkpoint.load_into`.

    Raises:
        UserError: As in :func:`create_model`.
    """
    if isinstance(checkpoint, str) and checkpoint.startswith(SCHEME):
        load_official(model, checkpoint, **settings)
    else:
        load_into(model, checkpoint, **settings)


def _file_name(checkpoint: str | Path | dict | None) -> str:
    """Name of a weight file; '' if it has none."""
    if checkpoint is None or isinstance(checkpoint, dict):
        return ''
    if isinstance(checkpoint, str) and checkpoint.startswith(SCHEME):
        checkpoint = official_address(checkpoint)
    return PurePosixPath(urlparse(str(checkpoint)).path).name


def _from_hub(source: str) -> tuple[str, dict, dict]:
    """Model name, settings and entries of the pretrained_cfg in the ``config.json`` of a timm model on the hub."""
    config = hub_config(source)
    name = config.get('architecture')
    if name not in list_models():
        raise UserError(f'{source} has the architecture {name!r}: choose a model of {", ".join(list_models())}')
    about = config.get('pretrained_cfg', config)  # old files of timm have one level
    settings = config.get('model_args', {})
    if not isinstance(about, dict) or not isinstance(settings, dict):
        raise UserError(f'config.json of {source} is damaged: pretrained_cfg and model_args must be objects')
    about = config | about
    if 'num_classes' in about:
        settings = {'num_classes': about['num_classes'], **settings}
    unknown = [key for key in settings if key not in HUB_SETTINGS]
    if unknown:
        raise UserError(
            f'config.json of {source} has unknown model_args {", ".join(unknown)}: pass {name!r} and its checkpoint'
        )
    known = pretrained_cfg(name.removeprefix(PREFIX))
    about = {key: tuple(value) if isinstance(value, list) else value for key, value in about.items() if key in known}
    return name, settings, about | {'url': None, 'hf_hub_id': source.removeprefix(HUB_SCHEME), 'source': 'hf-hub'}
