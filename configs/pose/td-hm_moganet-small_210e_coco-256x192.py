_base_ = './td-hm_moganet-tiny_210e_coco-256x192.py'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2, init_cfg=dict(checkpoint='mogacore://moganet_small')),
    head=dict(in_channels=512),
)
