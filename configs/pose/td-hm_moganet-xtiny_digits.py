# Five keypoints of each handwritten digit; trains from scratch in minutes on two CPU cores.
_base_ = [
    './_base_/models/td-hm_moganet.py',
    './_base_/datasets/digits.py',
    './_base_/schedules/adamw_digits.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    head=dict(in_channels=192, out_channels=5, deconv_out_channels=(64, 64, 64), decoder={{_base_.codec}}),
)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=10))
