_base_ = './td-hm_moganet-tiny_210e_coco-384x288.py'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2, init_cfg=dict(checkpoint='mogacore://moganet_small')),
    head=dict(in_channels=512),
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')  # the only one published in fp16
