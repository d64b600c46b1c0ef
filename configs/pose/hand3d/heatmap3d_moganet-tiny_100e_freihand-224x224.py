_base_ = [
    './_base_/models/heatmap3d.py',
    './_base_/datasets/freihand_224x224.py',
    './_base_/schedules/adam_100e.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        arch='tiny', drop_path_rate=0.15, init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')
    ),
    head=dict(in_channels=256, decoder={{_base_.codec}}),
)
default_hooks = dict(checkpoint=dict(interval=5, save_best='PA-MPJPE'))
