# 20 epochs from ImageNet weights: one epoch of warm-up, ten times the learning rate for the head, as mmpretrain's CSRA;
# AdamW in place of SGD, and a cosine in place of its steps.
_base_ = './adamw_5e.py'
optim_wrapper = dict(
    optimizer=dict(lr=1e-4), clip_grad=None, paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.0)})
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-7, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, end=20, T_max=19, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=20)
