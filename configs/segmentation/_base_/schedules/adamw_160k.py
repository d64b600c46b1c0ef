# UperNet: no weight decay for parameters with 'norm' or 'scale' in their names. The learning rate is the linear decay,
# counted from iteration 0, times the warm-up. Both schedulers reach their final value one step before ``end``: full
# warm-up at iteration 1500, zero at 160000.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1501),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=0, end=160001, by_epoch=False),
]
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MogaNetOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(no_decay_names=['layer_scale', 'scale', 'norm']),
)
