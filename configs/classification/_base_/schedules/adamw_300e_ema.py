# For S, B, L, XL: EMA of the weights with decay 0.9999, warmed up from 0.9 times that over 20 epochs of 1,252
# iterations; BatchNorm statistics are re-estimated for the averaged weights. With gradient accumulation, set interval
# to the number of accumulated batches, so that the average is updated once per optimizer step.
_base_ = './adamw_300e.py'
custom_hooks = [
    dict(type='PreciseBatchNormHook', num_samples=8192),
    dict(type='EMAHook', ema_type='LinearWarmupEMA', momentum=1e-4, start_factor=0.9, warmup_iters=20 * 1252),
]
