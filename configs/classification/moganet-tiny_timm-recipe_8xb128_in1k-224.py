# The recipe of the MogaNet release: its training script, built on timm, with the arguments of TRAINING.md.
_base_ = [
    './_base_/models/moganet_in1k_timm_light.py',
    './_base_/datasets/imagenet-224_timm_light.py',
    './_base_/schedules/adamw_310e_timm_light.py',
    './_base_/default_runtime.py',
]
