# This recipe is ours and has no published result: mmseg's Mask2Former and its schedule.
_base_ = [
    './_base_/models/mask2former_moganet.py',
    './_base_/datasets/ade20k_2-per-gpu.py',
    './_base_/schedules/adamw_160k_mask2former.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    decode_head=dict(in_channels=[32, 64, 128, 256]),
)
default_hooks = dict(checkpoint=dict(interval=5000))
