# The paper's recipe (OpenMixup): total batch size 1024, 300 epochs, cosine by iteration, multiplied by a warm-up of
# five epochs. As published, the cosine starts at epoch 0, not after the warm-up. Weight decay is chosen by name: the
# stem's BatchNorm weights decay, because their names contain none of these parts.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-8),
    constructor='MogaNetOptimWrapperConstructor',
    paramwise_cfg=dict(no_decay_names=['norm', 'bias', 'layer_scale', 'scale']),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=0,
        end=300,
        T_max=300,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# BatchNorm statistics are re-estimated on 8,192 images, augmented and mixed, at the end of each epoch.
custom_hooks = [dict(type='PreciseBatchNormHook', num_samples=8192)]
auto_scale_lr = dict(base_batch_size=1024)
