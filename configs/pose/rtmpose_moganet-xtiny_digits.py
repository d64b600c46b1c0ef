# Five keypoints of each handwritten digit; trains from scratch in minutes on two CPU cores.
_base_ = [
    './_base_/models/rtmpose_moganet.py',
    './_base_/datasets/digits_simcc.py',
    './_base_/schedules/adamw_digits.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    head=dict(
        in_channels=192, out_channels=5, input_size=(80, 80), in_featuremap_size=(3, 3), decoder={{_base_.codec}}
    ),
)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=10))
