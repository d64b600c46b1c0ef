_base_ = [
    './_base_/models/moganet_in1k.py',
    './_base_/datasets/imagenet-224.py',
    './_base_/schedules/adamw_300e_ema.py',
    './_base_/default_runtime.py',
]
model = dict(backbone=dict(arch='small'), head=dict(in_channels=512))
