_base_ = './internet_moganet-tiny_20e_interhand3d-256x256.py'
feature = dict(in_channels=512)
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2, init_cfg=dict(checkpoint='mogacore://moganet_small')),
    head=dict(keypoint_head_cfg=feature, root_head_cfg=feature, hand_type_head_cfg=feature),
)
