_base_ = [
    './_base_/models/moganet_cifar100.py',
    './_base_/datasets/cifar100-32.py',
    './_base_/schedules/adamw_200e_cifar100.py',
    './_base_/default_runtime.py',
]
model = dict(backbone=dict(arch='small'), head=dict(in_channels=512))
