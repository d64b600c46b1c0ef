_base_ = './upernet_moganet-tiny_160k_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='xtiny', init_cfg=dict(checkpoint='mogacore://moganet_xtiny')),
    decode_head=dict(in_channels=[32, 64, 96, 192]),
    auxiliary_head=dict(in_channels=96),
)
