# 100 epochs, as RTMDet trains with other pretrained backbones: constant until epoch 50, then half a cosine to a
# twentieth. The warm-up ends at iteration 999, one step before ``end``.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=10, dynamic_intervals=[(90, 1)])
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR', eta_min=5e-5, begin=50, end=100, T_max=50, by_epoch=True, convert_to_iter_based=True
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MogaNetOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(no_decay_vectors=True),
)
