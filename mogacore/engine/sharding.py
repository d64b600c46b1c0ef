"""Training with weights, gradients and optimizer states sharded across processes (FSDP)."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.config import Config
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import STRATEGIES
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from mogacore.errors import UserError
from mogacore.models.accelerated import is_enabled, run_block
from mogacore.models.layers import MogaBlock
from mogacore.models.untouched import is_untouched
from mogacore.text import type_name


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """mmengine's FSDPStrategy with support for MogaNet's blocks, CPUs, current torch, and gradient clipping.

    Each block of a MogaNet is one FSDP unit, the rest of the model another. A checkpoint contains the whole model, like
    one of an unsharded run, and the optimizer state by parameter name.

    Args:
        model_wrapper: Settings of mmengine's MMFullyShardedDataParallel, such as ``sharding_strategy`` ('SHARD_GRAD_OP'
            keeps the weights gathered between forward and backward: faster, more memory) or ``mixed_precision``.
        **kwargs: As in mmengine's FSDPStrategy.
    """

    def __init__(self, model_wrapper: dict | None = None, **kwargs):
        has_gpu = torch.cuda.is_available()
        device = torch.device('cuda', torch.cuda.current_device()) if has_gpu else torch.device('cpu')
        defaults = dict(auto_wrap_policy=ModuleWrapPolicy({MogaBlock}), device_id=device)
        # When torch 2.11 offloads a state that is already on the CPU, it crashes, or sets all states to the last one.
        on_cpu = dict(
            state_dict_type='FULL_STATE_DICT',
            state_dict_config=dict(type='FullStateDictConfig'),
            optim_state_dict_config=dict(type='FullOptimStateDictConfig', offload_to_cpu=False),
        )
        kwargs.setdefault('state_dict_cfg', 'full' if has_gpu else on_cpu)
        super().__init__(model_wrapper=defaults | (model_wrapper or {}), **kwargs)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        # FSDP calls each block itself and replaces its parameters, so the accelerated form is chosen beforehand, except
        # with dropout, which it does not apply.
        for block in model.modules():
            if is_enabled() and isinstance(block, MogaBlock) and is_untouched(block) and block.mlp.drop.p == 0:
                block.forward = partial(run_block, block)  # type: ignore[method-assign]  # only for this instance
        return super()._wrap_model(model)

    def build_optim_wrapper(
        self, optim_wrapper: BaseOptimWrapper | dict, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        wrapper = super().build_optim_wrapper(optim_wrapper, model)
        if getattr(wrapper, 'clip_func', None) is torch.nn.utils.clip_grad_norm_:
            # torch's function sees only this process's shard of the gradients.
            sharded = cast('FSDP', model)
            wrapper.clip_func = lambda _, **settings: sharded.clip_grad_norm_(**settings)
        return wrapper

    def load_model_state_dict(self, state_dict: dict, **kwargs) -> None:
        self.model.load_state_dict(state_dict)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        optimizer = self.optim_wrapper.optimizer
        self.optim_wrapper.load_state_dict(FSDP.optim_state_dict_to_load(self.model, optimizer, state_dict))


def check_sharding(cfg: Config, launcher: str) -> None:
    """Raise UserError if a config with ``strategy`` is started in a single process, or averages the sharded weights."""
    if launcher == 'none':
        raise UserError(
            'strategy needs several processes to shard the model: use tools/dist_train.sh or Slurm, or remove it'
        )
    if any(type_name(hook.type) == 'EMAHook' for hook in cfg.get('custom_hooks', [])):
        raise UserError(
            'strategy shards the model, so EMAHook cannot average its weights: pass --cfg-options '
            "custom_hooks='[]', or train without strategy"
        )
