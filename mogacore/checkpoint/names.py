"""Finds the state dicts in a container, and maps their keys to the model's.

Supports the containers and names of the paper's release, OpenMixup, timm, mmcv 1.x, mmengine and OpenSTL.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import methodcaller

from torch import Tensor

from mogacore.errors import UserError


@dataclass(frozen=True)
class WeightSets:
    """The one or two sets of weights in a container.

    Args:
        kind: Human-readable name of the container.
        state_dict: The set under the plain names.
        is_ema: Whether that set is an exponential moving average; None if there is only one set, of unknown kind.
        other: The other set, complete, or None.
    """

    kind: str
    state_dict: dict[str, Tensor]
    is_ema: bool | None = None
    other: dict[str, Tensor] | None = None

    def choose(self, ema: bool | None = None) -> WeightSets:
        """Reorder the sets so that the chosen one comes first: None for the plain one, True for the EMA, False for raw.

        A single set counts as raw. See :meth:`choose_published` for files whose content is not known beforehand.

        Raises:
            UserError: If the EMA is chosen and there is none.
        """
        if self.other is None and ema:
            raise UserError('the checkpoint has no EMA weights: omit ema (--ema) to use its only set')
        if self.other is None or ema in (None, self.is_ema):
            return self
        return WeightSets(self.kind, self.other, not self.is_ema, self.state_dict)

    def choose_published(self, weight_set: str) -> WeightSets:
        """Choose the set behind a published result: 'ema', 'raw', or '' for the plain one.

        A single set is always chosen, since it may be the average under the plain names without any mark.
        """
        return self if self.other is None or not weight_set else self.choose(weight_set == 'ema')


def weight_sets(container: dict) -> WeightSets:
    """Find the weights in a container returned by :func:`mogacore.checkpoint.read`.

    Raises:
        UserError: If there are none.

    Source: the published files; the EMA hooks of mmengine (``mmengine/hooks/ema_hook.py``) and mmcv 1.x, both of which
    save the EMA under the plain names.
    """
    key = next((key for key in ('state_dict', 'model') if isinstance(container.get(key), dict)), None)
    plain = container if key is None else container[key]
    if not plain or not all(isinstance(value, Tensor) for value in plain.values()):
        found = join_names(map(str, plain)) or 'nothing'
        raise UserError(f'the checkpoint has no state dict of tensors, it contains {found}: use a weight file')
    kind = 'bare state dict' if key is None else f'{key}{_writer(container)}'
    plain = _without_wrapper(plain)

    ema_key = next((key for key in ('state_dict_ema', 'model_ema') if container.get(key)), None)
    if ema_key is not None:
        return WeightSets(kind, plain, False, plain | _without_wrapper(container[ema_key]))
    if 'ema_state_dict' in container:
        raw = {name.removeprefix('module.'): value for name, value in container['ema_state_dict'].items()}
        raw.pop('steps', None)
        return WeightSets(kind, plain, True, plain | raw)
    raw_buffers = {name: 'ema_' + name.replace('.', '_') for name in plain}
    raw = {name: plain[buffer] for name, buffer in raw_buffers.items() if buffer in plain}
    if raw:
        buffers = set(raw_buffers.values())
        averaged = map_names(plain, lambda name: None if name in buffers else name)
        return WeightSets(kind, averaged, True, averaged | raw)
    return WeightSets(kind, plain)


def _writer(container: dict) -> str:
    meta = container.get('meta')
    writers = [name for name in ('mmengine', 'mmcv') if isinstance(meta, dict) and f'{name}_version' in meta]
    return f' of {writers[0]}' if writers else ''


def map_names(state_dict: dict[str, Tensor], rename: Callable[[str], str | None]) -> OrderedDict[str, Tensor]:
    """Rename the entries of a state dict, dropping those renamed to None; keeps the module versions of torch."""
    renamed = OrderedDict((new, value) for old, value in state_dict.items() if (new := rename(old)) is not None)
    if hasattr(state_dict, '_metadata'):
        renamed._metadata = state_dict._metadata  # type: ignore[attr-defined]  # an attribute that torch adds
    return renamed


def _without_wrapper(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the common prefix that DistributedDataParallel (module) or Lightning (model) adds to all names."""
    for prefix in ('module.', 'model.'):
        if all(name.startswith(prefix) for name in state_dict):
            state_dict = map_names(state_dict, methodcaller('removeprefix', prefix))
    return state_dict


# (pattern, replacement): names from before the first release, and sigma as a bare parameter.
_MODERN_RULES = (
    (r'(patch_embed[234]\.projection)\.0\.', r'\1.'),
    (r'(patch_embed[234])\.projection\.1\.', r'\1.norm.'),
    (r'((?:attn|mlp)\.sigma)$', r'\1.scale'),
)
LAYOUTS = {
    'published': (*_MODERN_RULES, (r'^backbone\.', ''), (r'^head\.fc\.', 'head.')),
    'backbone-prefixed': (
        *_MODERN_RULES,
        (r'^(?=patch_embed\d|blocks\d|norm\d)', 'backbone.'),
        (r'^head\.(?=(weight|bias)$)', 'head.fc.'),
    ),
}
# OpenSTL has sigma as a bare parameter, and wraps the depth-wise convolution of gSTA; mmpose 0.x names its head
# keypoint_head.
_OTHER_RULES = (
    (r'((?:attn|mlp)\.sigma)\.scale$', r'\1'),
    (r'(mlp\.dwconv)\.dwconv\.', r'\1.'),
    (r'^keypoint_head\.', 'head.'),
)
TRUNK = re.compile(r'(patch_embed|blocks|norm)\d\.')
CLASSIFIER = re.compile(r'head\.(fc\.)?(weight|bias)')


def to_layout(state_dict: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Rename a classification state dict to the names of the MogaNet release (published) or of OpenMMLab.

    Args:
        state_dict: A result of :func:`mogacore.checkpoint.load`.
        layout: A key of ``LAYOUTS``.

    Raises:
        UserError: If it contains more than a trunk and a classifier.
    """
    others = [
        name for name in state_dict if not (TRUNK.match(name.removeprefix('backbone.')) or CLASSIFIER.fullmatch(name))
    ]
    if others:
        raise UserError(
            f'layout {layout} supports only classification weights, but the file also has {join_names(others)}: '
            'omit the layout (--to)'
        )

    def rename(name: str) -> str:
        for pattern, replacement in LAYOUTS[layout]:
            name = re.sub(pattern, replacement, name)
        return name

    return map_names(state_dict, rename)


def map_keys(state_dict: dict[str, Tensor], model_keys: Iterable[str]) -> dict[str, Tensor]:
    """Rename entries to the published names that a model uses; unknown ones keep their names.

    Args:
        state_dict: A result of :func:`mogacore.checkpoint.load`.
        model_keys: Names in the state dict of the model.
    """
    model_keys = set(model_keys)
    taken = model_keys & set(state_dict)

    def rename(name: str) -> str:
        if name in model_keys:
            return name
        candidates = [name]
        for pattern, replacement in (*LAYOUTS['published'], *LAYOUTS['backbone-prefixed'], *_OTHER_RULES):
            renamed = [re.sub(pattern, replacement, known) for known in candidates]
            candidates += [known for known in renamed if known not in candidates]
        # If two names of the file match one of the model, the second keeps its own and is reported as unexpected.
        fitting = next((known for known in candidates if known in model_keys and known not in taken), name)
        taken.add(fitting)
        return fitting

    return map_names(state_dict, rename)


def join_names(names: Iterable[str], num_shown: int = 5) -> str:
    """Join the first names with commas, and append the number of the others."""
    names = list(names)
    more = len(names) - num_shown
    return ', '.join(names[:num_shown]) + (f' and {more} more' if more > 0 else '')
