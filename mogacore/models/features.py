"""Which stage maps a network returns, described in timm's terms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mogacore.errors import UserError


class FeatureInfo(list):
    """Description of every stage, one dict each, with the interface of timm's class of this name.

    A dict has ``num_chs``, the channels of the map; ``reduction``, its stride relative to the image; ``module``, the
    module that returns it; and ``index``, the stage.

    Args:
        stages: The dicts.
        out_indices: Stages that the network returns, in this order; the methods describe these.
    """

    def __init__(self, stages: Iterable[dict], out_indices: Sequence[int]):
        super().__init__(stages)
        self.out_indices = tuple(out_indices)

    def get(self, key: str, idx: int | Sequence[int] | None = None):
        """Value of ``key`` for stage ``idx``, or the list of values for several stages; None for the returned ones."""
        if isinstance(idx, int):
            return self[idx][key]
        return [self[i][key] for i in (self.out_indices if idx is None else idx)]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None):
        """The dict of stage ``idx``, or the list of dicts as in :meth:`get`; ``keys`` selects entries."""
        if isinstance(idx, int):
            return {key: self[idx][key] for key in keys or self[idx]}
        return [self.get_dicts(keys, i) for i in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None):
        """Channels of the maps, see :meth:`get`."""
        return self.get('num_chs', idx)

    def reduction(self, idx: int | Sequence[int] | None = None):
        """Strides of the maps relative to the image, see :meth:`get`."""
        return self.get('reduction', idx)

    def module_name(self, idx: int | Sequence[int] | None = None):
        """Names of the modules that return the maps, see :meth:`get`."""
        return self.get('module', idx)


def stage_indices(indices: int | Sequence[int] | None, num_stages: int, name: str = 'indices') -> tuple[int, ...]:
    """Stages selected in timm's manner, in ascending order.

    Args:
        indices: Stages, where -1 is the last one; a number n for the last n stages; None for all.
        num_stages: Stages of the network.
        name: Name of the setting, for the message.

    Raises:
        UserError: If the network has no such stage, or none is selected.
    """
    if indices is None:
        return tuple(range(num_stages))
    if isinstance(indices, int) and 1 <= indices <= num_stages:
        return tuple(range(num_stages - indices, num_stages))
    if isinstance(indices, int) or not len(indices) or any(i not in range(-num_stages, num_stages) for i in indices):
        last = num_stages - 1
        raise UserError(
            f'{name} {indices!r} is invalid: give stages from 0 to {last}, or from -{num_stages} to -1, or one number '
            f'from 1 to {num_stages} for as many last stages'
        )
    return tuple(sorted({i % num_stages for i in indices}))
