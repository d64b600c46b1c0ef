_base_ = [
    './_base_/models/moganet_multi-label.py',
    './_base_/datasets/digits_labels.py',
    './_base_/schedules/adamw_5e.py',
    './_base_/default_runtime.py',
]
model = dict(backbone=dict(arch='xtiny', drop_path_rate=0.0), head=dict(in_channels=192, num_classes=10))
default_hooks = dict(logger=dict(interval=20))
