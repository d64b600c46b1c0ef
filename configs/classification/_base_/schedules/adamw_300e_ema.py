# For S, B, L, XL: an average of the weights of decay 0.9999, reached from 0.9 of it over 20 epochs of 1,251 steps.
# The MogaNet repository instead averages BatchNorm's statistics too, and warms nothing up.
_base_ = './adamw_300e.py'
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', ema_type='LinearWarmupEMA', momentum=1e-4, start_factor=0.9, warmup_iters=20 * 1251),
]
