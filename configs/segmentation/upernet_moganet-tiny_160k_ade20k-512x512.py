_base_ = [
    './_base_/models/upernet_moganet.py',
    './_base_/datasets/ade20k_2-per-gpu.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    decode_head=dict(in_channels=[32, 64, 128, 256]),
    auxiliary_head=dict(in_channels=128),
)
default_hooks = dict(checkpoint=dict(interval=16000))
