_base_ = [
    './_base_/models/moganet_in1k_timm.py',
    './_base_/datasets/imagenet-224_timm.py',
    './_base_/schedules/adamw_310e_timm_ema.py',
    './_base_/default_runtime.py',
]
model = dict(backbone=dict(arch='small'), head=dict(in_channels=512))
