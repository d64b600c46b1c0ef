_base_ = [
    './_base_/models/deeplabv3plus_moganet.py',
    './_base_/datasets/digits.py',
    './_base_/schedules/adamw_digits.py',
    './_base_/default_runtime.py',
]
head = dict(channels=64, num_classes=11, loss_decode=dict(class_weight=_base_.class_weight))
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    decode_head=dict(in_channels=192, c1_in_channels=32, dilations=(1, 2, 3), **head),
    auxiliary_head=dict(in_channels=96, **head),
)
default_hooks = dict(checkpoint=dict(interval=1000), logger=dict(interval=20))
