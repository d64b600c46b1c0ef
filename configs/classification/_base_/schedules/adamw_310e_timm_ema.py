# For S, B, L, XL: EMA of weights and BatchNorm statistics with constant decay 0.9999.
_base_ = './adamw_310e_timm.py'
custom_hooks = [
    dict(type='ReduceStatisticsHook'),
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-4, update_buffers=True),
]
