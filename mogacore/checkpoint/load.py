"""Strict loading of weights: reports every missing, unexpected or misshapen key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from mmengine.logging import print_log
from torch import Tensor, nn

from mogacore.errors import UserError
from mogacore.kinds import checks_arguments
from mogacore.published import results
from mogacore.published.archs import ARCHS

from .names import CLASSIFIER, TRUNK, WeightSets, join_names, map_keys, map_names, weight_sets
from .sources import SCHEME, local_file, read


@checks_arguments()
def load(source: str | Path | dict, ema: bool | None = None) -> dict[str, Tensor]:
    """Read the state dict of a weight file, with the file's names less the prefixes of wrappers around the model.

    Args:
        source: Path, or a container returned by :func:`read`.
        ema: None chooses the file's ``state_dict``, True the EMA weights, False the raw ones.

    Raises:
        UserError: As in :func:`read`; if there is no state dict; if ``ema`` is True and there are no EMA weights.
    """
    sets = _sets(source, ema)
    if sets.strays:
        print_log(f'{_name(source)}: left out, since they are no tensors: {join_names(sets.strays)}', 'current')
    return sets.state_dict


def _sets(source: str | Path | dict, ema: bool | None) -> WeightSets:
    if isinstance(source, dict):
        return weight_sets(source).choose(ema)
    container = read(source)
    report_choice(container, source, ema)
    return weight_sets(container).choose(ema)


def _name(source: str | Path | dict) -> str:
    return 'the weights' if isinstance(source, dict) else str(source)


def report_choice(container: dict, name: object, ema: bool | None = None) -> None:
    """Log which set of weights :func:`load_into` takes from a container with two.

    Not part of loading a container, since a hook may have swapped the two sets in memory.

    Args:
        container: Result of :func:`read`.
        name: Its file.
        ema: See :func:`load`.
    """
    weight_sets(container).choose(ema).report(name)


class CheckpointError(UserError):
    """Weights that do not fit the model."""


@dataclass(frozen=True)
class LoadReport:
    """Result of :func:`load_into`, by the model's names where they exist.

    Args:
        loaded: Names that were loaded.
        missing: Names of the model that the file lacks, except BatchNorm's batch counters, which old files lack.
        unexpected: Names of the file that the model lacks.
        misshapen: Name, shape in the file, shape in the model.
        dropped: Classifier names of the file, if the model is a bare trunk.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    dropped: tuple[str, ...]


@checks_arguments()
def load_into(
    model: nn.Module,
    source: str | Path | dict,
    allow_missing: str | Iterable[str] = (),
    allow_unexpected: str | Iterable[str] = (),
    ema: bool | None = None,
    advice: str = 'or list what may be left out in allow_missing and allow_unexpected',
    first_conv: str | None = None,
) -> LoadReport:
    """Load weights into a model; every mismatch that the caller does not allow is an error.

    A bare trunk accepts a classification file: its classifier is dropped, which is logged.

    Args:
        model: Loaded in place; unchanged if this raises.
        source: Path, container or state dict.
        allow_missing: Patterns (``head.*``, see :mod:`fnmatch`) of the model's names that may keep their values because
            the file lacks them or has them in another shape or as integers.
        allow_unexpected: Patterns of the file's names, after mapping, that may be left out.
        ema: See :func:`load`.
        advice: What else the user of the caller can do about a mismatch, for the message; '' if nothing.
        first_conv: Module of the model whose weights are adapted if only their number of input channels differs, see
            :func:`adapt_channels`; None for none.

    Raises:
        CheckpointError: If a name is missing, unexpected, misshapen or mistyped and no pattern allows it.
        UserError: As in :func:`load`.
    """
    if not isinstance(source, dict):
        check_gate(model, source)
    own = model.state_dict()
    sets = _sets(source, ema)
    state_dict = map_keys(sets.state_dict, own)
    if first_conv is not None:
        state_dict = _with_channels_of(own, state_dict, f'{first_conv}.weight')
    is_trunk = all(TRUNK.match(name) for name in own)
    dropped = tuple(name for name in state_dict if is_trunk and CLASSIFIER.fullmatch(name))
    missing = tuple(name for name in own if name not in state_dict and not name.endswith('num_batches_tracked'))
    unexpected = tuple(name for name in state_dict if name not in own and name not in dropped)
    common = {name: value for name, value in state_dict.items() if name in own}
    misshapen = tuple(
        (name, tuple(value.shape), tuple(own[name].shape))
        for name, value in common.items()
        if value.shape != own[name].shape
    )
    # torch would convert integers to weights, and drop the imaginary part.
    mistyped = [
        name
        for name, value in common.items()
        if own[name].is_floating_point() and not value.is_floating_point() and value.shape == own[name].shape
    ]
    bad_missing = _not_allowed(missing, allow_missing)
    bad_unexpected = _not_allowed((*unexpected, *sets.strays), allow_unexpected)
    bad_shapes = _not_allowed([name for name, *_ in misshapen], allow_missing)
    bad_types = _not_allowed(mistyped, allow_missing)
    if bad_missing or bad_unexpected or bad_shapes or bad_types:
        shapes = [f'{name} {in_file} vs. {in_model}' for name, in_file, in_model in misshapen if name in bad_shapes]
        kinds = {name: str(tuple(value.shape)) for name, value in state_dict.items()}
        kinds |= {name: f'({kind}, not a tensor)' for name, kind in sets.strays.items()}
        found = {
            'missing': [f'{name} {tuple(own[name].shape)}' for name in bad_missing],
            'unexpected': [f'{name} {kinds[name]}' for name in bad_unexpected],
            'misshapen (file vs. model)': shapes,
            'mistyped (file vs. model)': [f'{name} {common[name].dtype} vs. {own[name].dtype}' for name in bad_types],
        }
        raise CheckpointError(_describe_mismatch(source, model, found, _size_hint(state_dict, own), advice))
    left_out = {name for name, *_ in misshapen} | set(mistyped)
    fitting = map_names(state_dict, lambda name: name if name in own and name not in left_out else None)
    broken = not_finite(fitting, [name for name, _ in model.named_parameters(remove_duplicate=False)])
    if broken:
        raise CheckpointError(
            f'{_name(source)} cannot be used, since {broken[0]}: use a checkpoint saved before the training diverged'
        )
    model.load_state_dict(fitting, strict=False)
    skipped = {
        'dropped the classifier': dropped,
        'allowed as missing': missing,
        'allowed as unexpected': (*unexpected, *sets.strays),
        'allowed as misshapen': [name for name, *_ in misshapen],
        'allowed as mistyped': mistyped,
    }
    for what, names in skipped.items():
        if names:
            print_log(f'load_into {type(model).__name__}: {what}: {join_names(names)}', 'current')
    return LoadReport(tuple(fitting), missing, unexpected, misshapen, dropped)


def _describe_mismatch(
    source: str | Path | dict, model: nn.Module, found: Mapping[str, list[str]], hint: str, advice: str
) -> str:
    """The line about a source that does not fit a model; ``found``: names by what is wrong with them."""
    return (
        f'{_name(source)} do{"" if isinstance(source, dict) else "es"} not fit {type(model).__name__}: '
        + '; '.join(f'{len(names)} {what}: {join_names(names)}' for what, names in found.items() if names)
        + hint
        + '. Use the matching model or file'
        + (f', {advice}' if advice else '')
    )


def _with_channels_of(own: dict[str, Tensor], state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """``state_dict`` with the weights ``name`` adapted if they differ from ``own`` in the input channels alone."""
    new, old = own.get(name), state_dict.get(name)
    if old is None or new is None or old.ndim != 4 or not old.is_floating_point() or old.shape == new.shape:
        return state_dict
    if (old.shape[0], *old.shape[2:]) != (new.shape[0], *new.shape[2:]) or not old.shape[1]:
        return state_dict
    print_log(f'{name}: adapted from {old.shape[1]} to {new.shape[1]} input channels', 'current')
    return map_names(state_dict | {name: adapt_channels(old, new.shape[1])}, lambda key: key)


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Weights of a convolution for another number of input channels, by timm's rule.

    For one channel, the weights of all channels are added, so that a gray image has the output of the image that
    repeats it. For any other number, they are repeated in turn and multiplied by old / new number of channels.

    Args:
        weight: (C_out, C_in, H, W).
        channels: New C_in.

    Source: timm, ``adapt_input_conv``.
    """
    if channels == 1:
        return weight.float().sum(1, keepdim=True).to(weight.dtype)
    taken = [i % weight.shape[1] for i in range(channels)]
    return (weight.float()[:, taken] * (weight.shape[1] / channels)).to(weight.dtype)


def not_finite(tensors: Mapping[str, Tensor], params: Iterable[str]) -> list[str]:
    """Name and value of each tensor that is nan, or infinite where that cannot be intended.

    Args:
        tensors: Weights and buffers of a model. A buffer may be infinite on purpose, such as a mask, but not the
            statistics of a normalization.
        params: Names of the weights among them.
    """
    strict = {*params, *(name for name in tensors if name.endswith(('running_mean', 'running_var')))}
    found = []
    for name, tensor in tensors.items():
        if tensor.isnan().any():
            found.append(f'{name} is nan')
        elif name in strict and tensor.isinf().any():
            found.append(f'{name} is inf')
    return found


def check_gate(model: nn.Module, source: str | Path, advice: str = 'create the model with {setting}') -> None:
    """Refuse a published file that was trained with another gate function than the model's.

    The two functions have the same parameters, so the weights would load, and the accuracy would be lower.

    Args:
        model: Any model; one without the setting ``attn_force_fp32`` passes.
        source: Path, address or ``mogacore://`` name. Only names of published files are known.
        advice: How the user of the caller changes a ``{setting}`` of the model, for the message.

    Raises:
        UserError: If the gate functions differ.
    """
    name = PurePosixPath(results.official_weights().get(str(source).removeprefix(SCHEME), str(source))).name
    trained = {result.attn_force_fp32 for result in results.result_of_weights(name)} - {None}
    gates = {module.attn_force_fp32 for module in model.modules() if hasattr(module, 'attn_force_fp32')}
    if gates and trained and gates != trained:
        setting = f'attn_force_fp32={next(iter(trained))}'
        raise UserError(
            f'{name} was trained with {setting}, another gate function than the model has: '
            f'{advice.format(setting=setting)}, or use the config of docs/model_zoo.md'
        )


def load_official(model: nn.Module, name: str, **settings) -> LoadReport:
    """Load a published file by name into a classifier or trunk, using the set of weights behind its published accuracy.

    Args:
        model: See :func:`load_into`.
        name: See :func:`official_address`.
        **settings: Further settings of :func:`load_into`.

    Raises:
        UserError: As in :func:`official_address` and :func:`load_into`; if the weights were trained with another gate
            function than the model's.
    """
    path = local_file(f'{SCHEME}{name.removeprefix(SCHEME)}')
    check_gate(model, path)
    sets = weight_sets(read(path)).choose_published(results.result_of_weights(path.name)[0].weight_set)
    sets.report(path)
    return load_into(model, sets.state_dict, **settings)


def _not_allowed(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]


def _published_size(state_dict: dict[str, Tensor]) -> str | None:
    shape = {name.removeprefix('backbone.'): tuple(value.shape) for name, value in state_dict.items()}
    widths = tuple(shape.get(f'norm{i}.weight', (None,))[0] for i in range(1, 5))
    depths = tuple(len({name.split('.')[1] for name in shape if name.startswith(f'blocks{i}.')}) for i in range(1, 5))
    return next((arch for arch, s in ARCHS.items() if (s['embed_dims'], s['depths']) == (widths, depths)), None)


def _size_hint(file: dict[str, Tensor], model: dict[str, Tensor]) -> str:
    size, expected = _published_size(file), _published_size(model)
    if size is None or size == expected:
        return ''
    return f'. The file looks like moganet_{size}' + (f', the model is moganet_{expected}' if expected else '')
