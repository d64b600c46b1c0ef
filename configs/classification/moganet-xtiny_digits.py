# MogaNet-XT on the handwritten digits of tools/make_digits.py; takes two minutes on two CPU cores.
_base_ = [
    './_base_/models/moganet.py',
    './_base_/datasets/digits.py',
    './_base_/schedules/adamw_5e.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='xtiny', in_channels=1, drop_path_rate=0.0),
    head=dict(in_channels=192, num_classes=10, topk=(1,)),
)
default_hooks = dict(logger=dict(interval=20))
