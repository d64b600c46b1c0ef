_base_ = './segformer_moganet-tiny_160k_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='mogacore://moganet_small')),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
)
