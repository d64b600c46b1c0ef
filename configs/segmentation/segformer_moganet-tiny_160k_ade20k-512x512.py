# This recipe is ours and has no published result: SegFormer's head and schedule, as for MiT-B0.
_base_ = [
    './_base_/models/segformer_moganet.py',
    './_base_/datasets/ade20k_2-per-gpu.py',
    './_base_/schedules/adamw_160k_segformer.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    decode_head=dict(in_channels=[32, 64, 128, 256]),
)
