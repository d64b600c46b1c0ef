_base_ = './moganet-tiny_multi-label_coco-448.py'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='mogacore://moganet_small')), head=dict(in_channels=512)
)
