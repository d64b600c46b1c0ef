_base_ = [
    './_base_/models/moganet_in1k_light.py',
    './_base_/datasets/imagenet-256_light.py',
    './_base_/schedules/adamw_300e_light.py',
    './_base_/default_runtime.py',
]
