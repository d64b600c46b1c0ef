_base_ = './semantic-fpn_moganet-tiny_80k_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='xtiny', init_cfg=dict(checkpoint='mogacore://moganet_xtiny')),
    neck=dict(in_channels=[32, 64, 96, 192]),
)
