_base_ = './retinanet_moganet-tiny_fpn_1x_coco.py'
model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='mogacore://moganet_base')),
    neck=dict(in_channels=[64, 160, 320, 512]),
)
