# OpenMixup's setting without an average of the weights.
_base_ = [
    './_base_/models/moganet_in1k.py',
    './_base_/datasets/imagenet-224.py',
    './_base_/schedules/adamw_300e.py',
    './_base_/default_runtime.py',
]
model = dict(backbone=dict(arch='small'), head=dict(in_channels=512))
