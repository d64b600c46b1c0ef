_base_ = './td-hm_moganet-tiny_210e_coco-384x288.py'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4, init_cfg=dict(checkpoint='mogacore://moganet_base')),
    head=dict(in_channels=512),
)
