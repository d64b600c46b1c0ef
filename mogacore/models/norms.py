"""The names that published code gives to the norm settings of the backbone."""

from __future__ import annotations

from mogacore.errors import UserError

from .layers import NORM_LAYERS


def choose_norms(
    norm_cfg: dict | None = None,
    stem_norm_cfg: dict | None = None,
    conv_norm_cfg: dict | None = None,
    stem_norm_type: str | None = None,
    conv_norm_type: str | None = None,
) -> tuple[dict, dict]:
    """Settings of the norms after the stages, and of all other norms.

    The published configs and OpenMixup name them ``stem_norm_cfg`` and ``conv_norm_cfg``, the released network
    ``stem_norm_type`` and ``conv_norm_type``. Despite its name, "stem" means the norm after each stage; those of the
    patch embeddings, the first one included, belong to "conv". The type GN means one group, in the released network one
    group per channel.

    Args:
        norm_cfg: Setting of all norms, see :func:`mogacore.models.layers.build_norm`.
        stem_norm_cfg: Setting of the norms after the stages; BN where neither it nor ``norm_cfg`` is given.
        conv_norm_cfg: Setting of all other norms; BN where neither it nor ``norm_cfg`` is given.
        stem_norm_type: Type of ``stem_norm_cfg``.
        conv_norm_type: Type of ``conv_norm_cfg``.

    Raises:
        UserError: If two names of one setting are given, or a type is unknown.

    Source: Westlake-AI/MogaNet, models/moganet.py; Westlake-AI/openmixup, openmixup/models/backbones/moganet.py.
    """
    chosen = []
    for part, cfg, norm_type in (('stem', stem_norm_cfg, stem_norm_type), ('conv', conv_norm_cfg, conv_norm_type)):
        named = {'norm_cfg': norm_cfg, f'{part}_norm_cfg': cfg, f'{part}_norm_type': norm_type}
        given = {name: value for name, value in named.items() if value is not None}
        if len(given) > 1:
            raise UserError(f'{" and ".join(given)} set the same norms: give only one of them')
        name, value = next(iter(given.items()), ('norm_cfg', {}))
        setting = {'type': value} if isinstance(value, str) else {'type': 'BN', **value}
        if setting['type'] not in NORM_LAYERS:
            raise UserError(f'{name} {setting["type"]!r} is unknown: choose from {", ".join(NORM_LAYERS)}')
        chosen.append(setting)
    return chosen[0], chosen[1]
