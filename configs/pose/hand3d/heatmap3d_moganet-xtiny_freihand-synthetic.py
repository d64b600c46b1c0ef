# 21 joints of a synthetic hand; trains from scratch in minutes on two CPU cores.
_base_ = [
    './_base_/models/heatmap3d.py',
    './_base_/datasets/freihand_synthetic.py',
    './_base_/schedules/adamw_synthetic.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    head=dict(in_channels=192, out_channels=21 * 16, deconv_out_channels=(128, 128, 128), decoder={{_base_.codec}}),
)
default_hooks = dict(checkpoint=dict(save_best='MPJPE'))
