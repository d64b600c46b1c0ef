# For S, B, L, XL: an average of the weights of decay 0.9999, reached from 0.9 of it over 20 epochs of 1,252 iterations;
# BatchNorm's statistics are re-estimated for the averaged weights. With accumulation, interval is its count: the
# average moves once a step. The MogaNet repository instead averages the statistics too, and warms nothing up.
_base_ = './adamw_300e.py'
custom_hooks = [
    dict(type='AveragePreciseBNHook', num_samples=8192),
    dict(type='EMAHook', ema_type='LinearWarmupEMA', momentum=1e-4, start_factor=0.9, warmup_iters=20 * 1252),
]
