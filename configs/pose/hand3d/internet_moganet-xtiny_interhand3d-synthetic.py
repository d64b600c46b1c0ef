# One or two synthetic hands; trains from scratch in minutes on two CPU cores.
_base_ = [
    './_base_/models/internet.py',
    './_base_/datasets/interhand3d_synthetic.py',
    './_base_/schedules/adamw_synthetic.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    head=dict(
        keypoint_head_cfg=dict(
            in_channels=192, out_channels=21 * 16, depth_size=16, deconv_out_channels=(128, 128, 128)
        ),
        root_head_cfg=dict(in_channels=192, heatmap_size=16),
        hand_type_head_cfg=dict(in_channels=192),
        decoder={{_base_.codec}},
    ),
)
