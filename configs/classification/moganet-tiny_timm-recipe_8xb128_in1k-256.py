_base_ = [
    './_base_/models/moganet_in1k_timm_light.py',
    './_base_/datasets/imagenet-256_timm_light.py',
    './_base_/schedules/adamw_310e_timm_light.py',
    './_base_/default_runtime.py',
]
