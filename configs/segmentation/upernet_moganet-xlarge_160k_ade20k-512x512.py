_base_ = './upernet_moganet-tiny_160k_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='xlarge', init_cfg=dict(checkpoint='mogacore://moganet_xlarge')),
    decode_head=dict(in_channels=[96, 192, 480, 960]),
    auxiliary_head=dict(in_channels=480),
)
