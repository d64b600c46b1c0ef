_base_ = [
    './_base_/models/semantic-fpn_moganet.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/adamw_80k.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
default_hooks = dict(checkpoint=dict(interval=4000))
