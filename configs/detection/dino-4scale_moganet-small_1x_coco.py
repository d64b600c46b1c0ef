_base_ = './dino-4scale_moganet-tiny_1x_coco.py'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='mogacore://moganet_small')),
    neck=dict(in_channels=[128, 320, 512]),
)
