_base_ = './semantic-fpn_moganet-tiny_80k_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='mogacore://moganet_small')),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
