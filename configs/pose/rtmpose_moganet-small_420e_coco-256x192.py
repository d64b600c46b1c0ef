_base_ = './rtmpose_moganet-tiny_420e_coco-256x192.py'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='mogacore://moganet_small')),
    head=dict(in_channels=512),
)
