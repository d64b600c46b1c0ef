# OpenMixup's recipe for CIFAR-100: batch size 100, cosine by epoch to zero, multiplied by a warm-up by iteration. As
# published, BatchNorm keeps its running statistics.
_base_ = './adamw_300e.py'
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, end=200, T_max=200),
]
train_cfg = dict(max_epochs=200)
custom_hooks = []
auto_scale_lr = dict(base_batch_size=100)
