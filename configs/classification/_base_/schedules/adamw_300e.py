# The paper's recipe (OpenMixup): total batch size 1024, 300 epochs, cosine by iteration, multiplied by a warm-up of
# five epochs. As published, the cosine starts at epoch 0, not after the warm-up.
# The MogaNet repository instead steps by epoch, warms up from 1e-5, adds 10 epochs at the minimum learning rate,
# applies weight decay to layer scales and sigmas, and averages BatchNorm's running statistics over GPUs instead of
# re-estimating them.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-8),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'layer_scale': dict(decay_mult=0.0), 'scale': dict(decay_mult=0.0)},
    ),
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
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# BatchNorm statistics are re-estimated on 8,192 images at the end of each epoch.
custom_hooks = [dict(type='PreciseBNHook', num_samples=8192, interval=1)]
auto_scale_lr = dict(base_batch_size=1024)
