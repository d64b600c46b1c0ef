_base_ = './td-hm_moganet-tiny_210e_coco-256x192.py'
model = dict(
    backbone=dict(arch='xtiny', drop_path_rate=0.1, init_cfg=dict(checkpoint='mogacore://moganet_xtiny')),
    head=dict(in_channels=192),
)
