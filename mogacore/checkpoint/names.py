"""Finds the state dicts in a container, and maps their keys to the model's.

Supports the containers and names of the paper's release, OpenMixup, timm, mmcv 1.x, mmengine and OpenSTL.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import methodcaller

from mmengine.logging import print_log
from torch import Tensor

from mogacore.errors import UserError
from mogacore.text import shorten

from .schema import BUFFERS, EMA_KEYS, PLAIN_KEYS, RAW_KEY, is_state_dict


@dataclass(frozen=True)
class WeightSets:
    """The one or two sets of weights in a container.

    Args:
        kind: Human-readable name of the container.
        state_dict: The set under the plain names.
        is_ema: Whether that set is an exponential moving average; None if there is only one set, of unknown kind.
        other: The other set, complete, or None.
        strays: Entries beside the tensors of ``state_dict`` that are not tensors: name to type.
    """

    kind: str
    state_dict: dict[str, Tensor]
    is_ema: bool | None = None
    other: dict[str, Tensor] | None = None
    strays: dict[str, str] = field(default_factory=dict)

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
        return WeightSets(self.kind, self.other, not self.is_ema, self.state_dict, self.strays)

    def report(self, name: object) -> None:
        """Log which set comes first if there are two; ``name`` is their file."""
        if self.other is not None:
            chosen = 'EMA' if self.is_ema else 'raw'
            print_log(f'{name} contains raw and EMA weights: using the {chosen} ones', 'current')

    def choose_published(self, weight_set: str) -> WeightSets:
        """Choose the set behind a published result: 'ema', 'raw', or '' for the plain one.

        A single set is always chosen, since it may be the average under the plain names without any mark.
        """
        return self if self.other is None or not weight_set else self.choose(weight_set == 'ema')


def weight_sets(container: dict) -> WeightSets:
    """Find the weights in a container returned by :func:`mogacore.checkpoint.read`.

    Raises:
        UserError: If there are none, or two names differ only in their wrappers.

    Source: the published files; the EMA hooks of mmengine (``mmengine/hooks/ema_hook.py``) and mmcv 1.x, both of which
    save the EMA under the plain names.
    """
    found = [key for key in PLAIN_KEYS if isinstance(container.get(key), dict)]
    key = next((key for key in found if is_state_dict(container[key])), found[0] if found else None)
    content = container if key is None else container[key]
    if not is_state_dict(content):
        names = join_names(content) or 'nothing'
        raise UserError(f'the checkpoint has no state dict of tensors, it contains {names}: use a weight file')
    kind = 'bare state dict' if key is None else f'{key}{_writer(container)}'
    strays = {name: type(value).__name__ for name, value in content.items() if not isinstance(value, Tensor)}
    plain = _without_wrappers(content)

    averaged = _averaged(container)
    if averaged is not None:
        return WeightSets(kind, plain, False, _completed(averaged, plain), strays)
    if container.get(RAW_KEY) and key is not None:
        raw = map_names(container[RAW_KEY], lambda name: None if name == 'steps' else name)
        return WeightSets(kind, plain, True, _completed(_without_wrappers(raw), plain), strays)
    raw_buffers = {name: 'ema_' + name.replace('.', '_') for name in plain}
    raw = OrderedDict((name, plain[buffer]) for name, buffer in raw_buffers.items() if buffer in plain)
    if raw:
        buffers = set(raw_buffers.values())
        ema = map_names(plain, lambda name: None if name in buffers else name)
        return WeightSets(kind, ema, True, OrderedDict(ema | raw), strays)
    return WeightSets(kind, plain, strays=strays)


def _averaged(container: dict) -> dict[str, Tensor] | None:
    """The EMA weights that are beside raw ones, of timm (state_dict_ema, model_ema) or DETR (ema, maybe nested)."""
    for content in (*(container.get(key) for key in EMA_KEYS), container.get('ema')):
        levels = [content, *(content.get(key) for key in PLAIN_KEYS)] if isinstance(content, dict) else []
        for level in levels:
            if isinstance(level, dict) and is_state_dict(level):
                return _without_wrappers(level)
    return None


def _completed(other: dict[str, Tensor], plain: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add BatchNorm's statistics, which some averages lack; other missing names are left to strict loading."""
    known = {name: other.get(name, value) for name, value in plain.items() if name in other or name.endswith(BUFFERS)}
    return OrderedDict(known | other)


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


# Modules that torch inserts at any depth: torch.compile, FSDP, activation checkpointing.
_INSERTED = re.compile(r'(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.')
# Prefixes of wrappers around the model: DistributedDataParallel, DeepSpeed and AveragedModel; Lightning.
_PREFIXES = ('module.', 'model.', 'net.')
_COUNTER = 'n_averaged'  # of torch.optim.swa_utils.AveragedModel


def _without_wrappers(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict, without the common prefixes of wrappers in any order, and without their counters."""
    state_dict = map_names(state_dict, lambda name: name if isinstance(state_dict[name], Tensor) else None)
    state_dict = _renamed(state_dict, lambda name: _INSERTED.sub('', name))
    while True:
        names = [name for name in state_dict if name != _COUNTER]
        prefix = next((prefix for prefix in _PREFIXES if names and all(n.startswith(prefix) for n in names)), None)
        if prefix is None:
            return state_dict
        if prefix == 'module.':
            state_dict = map_names(state_dict, lambda name: None if name == _COUNTER else name)
        state_dict = map_names(state_dict, methodcaller('removeprefix', prefix))


def _renamed(state_dict: dict[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    olds: dict[str, str] = {}
    for old in state_dict:
        other = olds.setdefault(rename(old), old)
        if other != old:
            raise UserError(f'the checkpoint has two entries for {rename(old)}, {other} and {old}: remove one of them')
    return map_names(state_dict, rename)


def _with_prefixes_of_model(state_dict: dict[str, Tensor], model_keys: set[str]) -> dict[str, Tensor]:
    """Remove prefixes of the model's entries beside other ones, such as weights of a loss in a Lightning module.

    An entry whose shorter name also exists keeps its name, so that strict loading reports it. If the model's own names
    all have the prefixes that reading removed, they are put back.
    """
    own = ''
    while prefix := next((p for p in _PREFIXES if all(name.startswith(own + p) for name in model_keys)), None):
        own += prefix
    if own and not any(name in model_keys for name in state_dict):
        return map_names(state_dict, lambda name: own + name)
    for prefix in (*_PREFIXES, *_PREFIXES):  # each may be inside another
        if not any(name.startswith(prefix) for name in model_keys):
            inner = {n for n in state_dict if n.startswith(prefix) and n.removeprefix(prefix) not in state_dict}
            names = {name: name.removeprefix(prefix) if name in inner else name for name in state_dict}
            state_dict = map_names(state_dict, names.get)
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
_POSE_RULES = ((r'^keypoint_head\.', 'head.'),)
_OTHER_RULES = (
    (r'((?:attn|mlp)\.sigma)\.scale$', r'\1'),
    (r'(mlp\.dwconv)\.dwconv\.', r'\1.'),
    *_POSE_RULES,
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

    return map_names(state_dict, lambda name: _substituted(name, LAYOUTS[layout]))


def to_current(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of a detector, segmentor or pose model from before mmpose 1.0 and the first release."""
    return map_names(state_dict, lambda name: _substituted(name, (*_MODERN_RULES, *_POSE_RULES)))


def _substituted(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def map_keys(state_dict: dict[str, Tensor], model_keys: Iterable[str]) -> dict[str, Tensor]:
    """Rename entries to the published names that a model uses; unknown ones keep their names.

    Args:
        state_dict: A result of :func:`mogacore.checkpoint.load`.
        model_keys: Names in the state dict of the model.
    """
    model_keys = set(model_keys)
    if not model_keys:
        return state_dict
    state_dict = _with_prefixes_of_model(state_dict, model_keys)
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
    """:func:`mogacore.text.shorten` for names from a file, which may be of any length."""
    return shorten((name if len(name) <= 100 else f'{name[:97]}...' for name in map(str, names)), num_shown)
