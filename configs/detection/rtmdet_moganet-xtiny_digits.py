# Detects handwritten digits in scenes; trains from scratch in minutes on two CPU cores.
_base_ = [
    './_base_/models/rtmdet_moganet.py',
    './_base_/datasets/digits_detection.py',
    './_base_/schedules/adamw_digits.py',
    './_base_/default_runtime.py',
]
# Targets of the classes are IoUs. With exp_on_reg the first boxes have the size of the stride; without, they are empty,
# and the classes learn nothing until boxes have grown.
model = dict(
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    neck=dict(in_channels=[64, 96, 192], out_channels=64, num_csp_blocks=1, norm_cfg=dict(type='BN')),
    bbox_head=dict(num_classes=10, in_channels=64, feat_channels=64, exp_on_reg=True, norm_cfg=dict(type='BN')),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
default_hooks = dict(logger=dict(interval=20))
