# Training script and arguments of the MogaNet release (timm 0.6.12): 300 epochs and 10 of cool-down, learning rate set
# per epoch; parameters of one dimension and biases do not decay, layer scales and sigmas do. As in its DDP, the running
# statistics of BatchNorm are those of the first process, averaged over the processes at the end of each epoch.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    constructor='MogaNetOptimWrapperConstructor',
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=5, warmup_start=1e-5, eta_min=1e-5, by_epoch=True, cosine_end=300, end=310)
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=310, val_interval=1)
val_cfg = dict()
test_cfg = dict()
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=True)
custom_hooks = [dict(type='ReduceStatisticsHook')]
auto_scale_lr = dict(base_batch_size=1024)
