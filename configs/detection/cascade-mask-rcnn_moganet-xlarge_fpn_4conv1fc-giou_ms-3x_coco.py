# The published code has no config of this size: recipe of L, with drop path 0.4 as in classification and UperNet.
_base_ = './cascade-mask-rcnn_moganet-base_fpn_4conv1fc-giou_ms-3x_coco.py'
model = dict(
    backbone=dict(arch='xlarge', init_cfg=dict(checkpoint='mogacore://moganet_xlarge')),
    neck=dict(in_channels=[96, 192, 480, 960]),
)
