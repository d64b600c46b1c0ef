# This recipe is ours and has no published result: mmdet's FCOS with the schedule of our RetinaNet.
_base_ = [
    './_base_/models/fcos_moganet_fpn.py',
    './_base_/datasets/coco_detection.py',
    './_base_/schedules/adamw_1x.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
