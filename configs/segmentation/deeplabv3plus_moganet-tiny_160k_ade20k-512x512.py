# This recipe is ours and has no published result: mmseg's DeepLabV3+ head, our UperNet schedule.
_base_ = [
    './_base_/models/deeplabv3plus_moganet.py',
    './_base_/datasets/ade20k_2-per-gpu.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    decode_head=dict(in_channels=256, c1_in_channels=32),
    auxiliary_head=dict(in_channels=128),
)
