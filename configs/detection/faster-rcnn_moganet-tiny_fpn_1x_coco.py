# This recipe is ours and has no published result: mmdet's Faster R-CNN with the schedule of our Mask R-CNN.
_base_ = [
    './_base_/models/faster-rcnn_moganet_fpn.py',
    './_base_/datasets/coco_detection.py',
    './_base_/schedules/adamw_1x.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
