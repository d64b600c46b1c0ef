# From scratch on the digit scenes: AdamW, a short warm-up, then cosine to zero, by iteration.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MogaNetOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(no_decay_vectors=True),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
]
