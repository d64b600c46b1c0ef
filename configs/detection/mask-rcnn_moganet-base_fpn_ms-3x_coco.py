_base_ = './mask-rcnn_moganet-tiny_fpn_ms-3x_coco.py'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint='mogacore://moganet_base')),
    neck=dict(in_channels=[64, 160, 320, 512]),
)
