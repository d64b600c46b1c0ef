# The refined light recipe, T* of the paper: 3-Augment, twice the learning rate, 20 epochs of warm-up.
_base_ = [
    './_base_/models/moganet_in1k_light.py',
    './_base_/datasets/imagenet-256_3aug.py',
    './_base_/schedules/adamw_300e_light.py',
    './_base_/default_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[0]['end'] = 20
