_base_ = [
    './_base_/models/internet.py',
    './_base_/datasets/interhand3d_256x256.py',
    './_base_/schedules/adam_20e.py',
    './_base_/default_runtime.py',
]
feature = dict(in_channels=256)
model = dict(
    backbone=dict(
        arch='tiny', drop_path_rate=0.15, init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')
    ),
    head=dict(keypoint_head_cfg=feature, root_head_cfg=feature, hand_type_head_cfg=feature, decoder={{_base_.codec}}),
)
