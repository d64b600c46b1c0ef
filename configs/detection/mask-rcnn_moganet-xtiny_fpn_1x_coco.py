_base_ = './mask-rcnn_moganet-tiny_fpn_1x_coco.py'
model = dict(
    backbone=dict(arch='xtiny', init_cfg=dict(checkpoint='mogacore://moganet_xtiny')),
    neck=dict(in_channels=[32, 64, 96, 192]),
)
