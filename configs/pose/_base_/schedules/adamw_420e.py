# RTMPose: 420 epochs, constant, then half a cosine to a twentieth from epoch 210 on. The warm-up ends at iteration 999,
# one step before ``end``. Half of RTMPose's learning rate, as RTMDet halves its own for pretrained ConvNeXt and Swin.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=420, val_interval=10)
val_cfg = dict()
test_cfg = dict()
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR', eta_min=1e-4, begin=210, end=420, T_max=210, by_epoch=True, convert_to_iter_based=True
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MogaNetOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(no_decay_vectors=True),
)
