"""Sizes of MogaNet: the published ones by name, and validation of custom ones."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from mogacore.errors import UserError

# Paper, table A1; drop_path_rate is that of training on ImageNet-1K.
ARCHS = {
    'xtiny': dict(embed_dims=(32, 64, 96, 192), depths=(3, 3, 10, 2), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.05),
    'tiny': dict(embed_dims=(32, 64, 128, 256), depths=(3, 3, 12, 2), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.1),
    'small': dict(embed_dims=(64, 128, 320, 512), depths=(2, 3, 12, 2), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.1),
    'base': dict(embed_dims=(64, 160, 320, 512), depths=(4, 6, 22, 3), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.2),
    'large': dict(embed_dims=(64, 160, 320, 640), depths=(4, 6, 44, 4), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.3),
    'xlarge': dict(embed_dims=(96, 192, 480, 960), depths=(6, 6, 44, 4), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.4),
}
ALIASES = {
    'xt': 'xtiny',
    'x-tiny': 'xtiny',
    't': 'tiny',
    's': 'small',
    'b': 'base',
    'l': 'large',
    'xl': 'xlarge',
    'x-large': 'xlarge',
}
ARCH_KEYS = ('embed_dims', 'depths', 'ffn_ratios')


def arch_name(arch: str | dict) -> str | None:
    """Published name of a size given by name or alias, case-insensitive; None for a custom size.

    Raises:
        UserError: If the name is unknown.
    """
    if not isinstance(arch, str):
        return None
    name = ALIASES.get(arch.lower(), arch.lower())
    if name not in ARCHS:
        raise UserError(
            f'arch {arch!r} is unknown: choose from {", ".join(ARCHS)}, or pass a dict with {", ".join(ARCH_KEYS)}'
        )
    return name


def parse_arch(arch: str | dict, channel_split: Sequence[int] = (1, 3, 4)) -> dict:
    """Settings of a published size, or a validated copy of a custom size.

    Args:
        arch: A key of ``ARCHS`` or ``ALIASES``, case-insensitive, or a dict with exactly the keys ``embed_dims``,
            ``depths`` and ``ffn_ratios``, each with four numbers.
        channel_split: Relative sizes of the channel groups of the multi-order convolution; every width must be
            divisible by their sum.

    Returns:
        ``embed_dims``, ``depths``, ``ffn_ratios`` and ``drop_path_rate``, which is 0 for a custom size.

    Raises:
        UserError: If the name is unknown, or the dict has other keys or invalid numbers.
    """
    if name := arch_name(arch):
        return dict(ARCHS[name])
    if not isinstance(arch, dict) or set(arch) != set(ARCH_KEYS):
        got = sorted(arch) if isinstance(arch, dict) else arch
        raise UserError(
            f'arch {got!r} is invalid: pass a name ({", ".join(ARCHS)}) or a dict with exactly '
            f'the keys {", ".join(ARCH_KEYS)}'
        )
    settings = {key: tuple(arch[key]) for key in ARCH_KEYS}
    for key, values in settings.items():
        integral = key != 'ffn_ratios'
        if len(values) != 4 or any(v <= 0 or (integral and not isinstance(v, Integral)) for v in values):
            kind = 'positive integers' if integral else 'positive numbers'
            raise UserError(f'arch {key} {values} is invalid: give four {kind}, one per stage')
    unit = sum(channel_split)
    for width in settings['embed_dims']:
        if width % unit:
            raise UserError(
                f'arch embed_dims {settings["embed_dims"]}: width {width} is not divisible by {unit}, the '
                f'sum of the channel split {tuple(channel_split)}; choose multiples of {unit}'
            )
    return settings | {'drop_path_rate': 0.0}
