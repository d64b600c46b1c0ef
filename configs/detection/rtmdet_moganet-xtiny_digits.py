# Detects handwritten digits in scenes, trained from scratch with RTMDet's learning rate; it has no measured figure.
_base_ = [
    './_base_/models/rtmdet_moganet.py',
    './_base_/datasets/digits_detection.py',
    './_base_/schedules/adamw_digits.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    neck=dict(in_channels=[64, 96, 192], out_channels=64, num_csp_blocks=1, norm_cfg=dict(type='BN')),
    bbox_head=dict(num_classes=10, in_channels=64, feat_channels=64, exp_on_reg=False, norm_cfg=dict(type='BN')),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
train_cfg = dict(max_epochs=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=20))
