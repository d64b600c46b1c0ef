_base_ = [
    './_base_/models/faster-rcnn_moganet_fpn.py',
    './_base_/datasets/digits_detection.py',
    './_base_/schedules/adamw_digits.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    neck=dict(in_channels=[32, 64, 96, 192], out_channels=64, norm_cfg={{_base_.head_norm}}),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[6])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))),
)
default_hooks = dict(logger=dict(interval=20))
