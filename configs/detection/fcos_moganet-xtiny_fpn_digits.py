_base_ = [
    './_base_/models/fcos_moganet_fpn.py',
    './_base_/datasets/digits_detection.py',
    './_base_/schedules/adamw_digits.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    neck=dict(in_channels=[32, 64, 96, 192], out_channels=64, norm_cfg={{_base_.head_norm}}),
    bbox_head=dict(num_classes=10, in_channels=64, feat_channels=64, norm_cfg={{_base_.head_norm}}),
)
default_hooks = dict(logger=dict(interval=20))
