_base_ = './mask-rcnn_moganet-tiny_fpn_ms-3x_coco.py'
model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint='mogacore://moganet_large')),
    neck=dict(in_channels=[64, 160, 320, 640]),
)
