_base_ = './td-hm_moganet-tiny_210e_coco-256x192.py'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint='mogacore://moganet_base')),
    head=dict(in_channels=512),
)
