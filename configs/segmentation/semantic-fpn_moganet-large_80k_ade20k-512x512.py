_base_ = './semantic-fpn_moganet-tiny_80k_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint='mogacore://moganet_large')),
    neck=dict(in_channels=[64, 160, 320, 640]),
)
