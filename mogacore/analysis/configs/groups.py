"""Parameter groups of an optimizer, with equal ones folded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from mmengine.config import Config
from mmengine.optim import OptimWrapperDict, build_optim_wrapper

from mogacore.engine.amp import set_precision
from mogacore.engine.config import build_for_counting, replace_sync_bn
from mogacore.engine.explain import user_errors
from mogacore.engine.optim import check_paramwise
from mogacore.errors import UserError


@dataclass
class Group:
    """Parameters with the same settings.

    Args:
        optimizer: Name of the optimizer, if there are several.
        lr: Learning rate; None for parameters that are not trained.
        lr_mult: It as a multiple of the optimizer's.
        weight_decay: Weight decay; None for parameters that are not trained.
        decay_mult: It as a multiple of the optimizer's; None if that is 0.
        others: Further settings in which the group differs from the optimizer.
        num_params: Number of elements of all tensors.
        names: Names of the tensors, in the order of the model.
    """

    optimizer: str
    lr: float | None
    lr_mult: float | None
    weight_decay: float | None
    decay_mult: float | None
    others: dict = field(default_factory=dict)
    num_params: int = 0
    names: list[str] = field(default_factory=list)

    def as_json(self) -> dict:
        """JSON-serializable fields."""
        return asdict(self)


def list_groups(cfg: Config) -> list[Group]:
    """Build the model and its optimizer as training does, without values, and fold its groups.

    Args:
        cfg: Config read by :func:`mogacore.engine.config.load_config`; changed in place.

    Returns:
        The groups with the highest learning rates and weight decays first; parameters that are not trained last.

    Raises:
        UserError: If the config trains nothing, or ``paramwise_cfg`` is invalid.
    """
    if not cfg.get('optim_wrapper'):
        raise UserError(f'config {cfg.filename} has no optim_wrapper: give the config of a training')
    set_precision(cfg, None)
    replace_sync_bn(cfg.model)
    with user_errors():
        model = build_for_counting(cfg)
        check_paramwise(cfg.optim_wrapper, model)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    wrappers = dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}
    names = {id(param): name for name, param in model.named_parameters()}
    order = {name: number for number, name in enumerate(names.values())}
    found: dict[tuple, Group] = {}
    for label, item in wrappers.items():
        defaults = item.optimizer.defaults
        for group in item.optimizer.param_groups:  # the wrapper's own list has one more, for the log
            lr, decay = group['lr'], group.get('weight_decay', 0.0)
            others = {key: group[key] for key in defaults if key not in ('lr', 'weight_decay')}
            others = {key: value for key, value in others.items() if value != defaults[key]}
            base_lr, base_decay = defaults['lr'], defaults.get('weight_decay', 0.0)
            for param in group['params']:
                name = names.pop(id(param))
                is_trained = param.requires_grad
                settings = Group(
                    label, lr, lr / base_lr, decay, decay / base_decay if base_decay else None, others
                ) if is_trained else Group('', None, None, None, None)  # fmt: skip
                _add(found, settings, name, param.numel())
    sizes = {name: param.numel() for name, param in model.named_parameters()}
    for name in names.values():
        _add(found, _frozen(), name, sizes[name])
    for entry in found.values():
        entry.names.sort(key=order.__getitem__)
    return sorted(
        found.values(),
        key=lambda item: (item.lr is None, item.optimizer, -(item.lr or 0), -(item.weight_decay or 0)),
    )


def _frozen() -> Group:
    return Group('', None, None, None, None)


def _add(found: dict[tuple, Group], settings: Group, name: str, size: int) -> None:
    key = (settings.optimizer, settings.lr, settings.weight_decay, repr(settings.others))
    group = found.setdefault(key, settings)
    group.names.append(name)
    group.num_params += size
