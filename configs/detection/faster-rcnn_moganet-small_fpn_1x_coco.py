_base_ = './faster-rcnn_moganet-tiny_fpn_1x_coco.py'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='mogacore://moganet_small')),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
