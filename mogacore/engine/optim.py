"""Parameter groups of the published recipes for every task: weight decay and layer-wise learning rates."""

from __future__ import annotations

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mogacore.errors import UserError

SETTINGS = ('layer_decay_rate', 'no_decay_names', 'no_decay_vectors')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MogaNetOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Builds an optimizer with the parameter groups of the published detectors and segmentors.

    ``paramwise_cfg`` of the config accepts:

    - ``no_decay_names``: sequence of strings; a parameter whose name contains any of them has no weight decay.
    - ``no_decay_vectors``: True exempts biases from weight decay, and every parameter with at most one dimension
      longer than 1: norms, layer scales, sigmas and the 1-wide ``decompose`` weights.
    - ``layer_decay_rate``: in (0, 1]; the learning rate of a backbone parameter is multiplied by this rate to the power
      of its depth counted from the heads, see :meth:`mogacore.models.MogaNet.get_layer_depth`. 1 means no layer decay.

    Raises:
        UserError: If ``paramwise_cfg`` has an unknown key or a value out of range, or layer decay finds no backbone
            with ``get_layer_depth``.

    Source: the detection and segmentation configs of Westlake-AI/MogaNet, and their layer-decay constructor.
    """

    def _validate_cfg(self) -> None:
        unknown = sorted(set(self.paramwise_cfg) - set(SETTINGS))
        if unknown:
            raise UserError(f'paramwise_cfg has no setting {unknown[0]!r}: choose from {", ".join(SETTINGS)}')
        rate = self.paramwise_cfg.get('layer_decay_rate', 1.0)
        if not 0 < rate <= 1:
            raise UserError(f'layer_decay_rate {rate} is out of range: choose a value above 0 and at most 1')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Add one group per pair of learning rate and weight decay; ``param_names`` lists the names of its members."""
        base_lr, base_wd = self.base_lr, self.base_wd or 0.0
        groups: dict[tuple[float, float], dict] = {}
        multipliers = self._rate_multipliers(module)
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            multiplier = multipliers.get(name, 1.0)
            weight_decay = 0.0 if self._is_free_of_decay(name, param) else base_wd
            group = groups.setdefault(
                (multiplier, weight_decay),
                dict(params=[], param_names=[], lr=base_lr * multiplier, weight_decay=weight_decay),
            )
            group['params'].append(param)
            group['param_names'].append(name)
        params.extend(group for _, group in sorted(groups.items()))

    def _is_free_of_decay(self, name: str, param: nn.Parameter) -> bool:
        if any(part in name for part in self.paramwise_cfg.get('no_decay_names', ())):
            return True
        is_vector = name.endswith('.bias') or sum(size > 1 for size in param.shape) <= 1
        return self.paramwise_cfg.get('no_decay_vectors', False) and is_vector

    def _rate_multipliers(self, model: nn.Module) -> dict[str, float]:
        """Learning-rate multiplier of each backbone parameter in ``model``, by its name in ``model``."""
        rate = self.paramwise_cfg.get('layer_decay_rate', 1.0)
        if rate == 1:
            return {}
        multipliers = {}
        for prefix, module in model.named_modules():
            if not hasattr(module, 'get_layer_depth'):
                continue
            for name, _ in module.named_parameters():
                depth, num_layers = module.get_layer_depth(name)
                multipliers[f'{prefix}.{name}' if prefix else name] = rate ** (num_layers - 1 - depth)
        if not multipliers:
            raise UserError('layer_decay_rate needs a backbone with get_layer_depth: use MogaNet or remove the setting')
        return multipliers
