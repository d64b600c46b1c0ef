# This recipe is ours and has no published result: mmdet's DINO with 4 scales.
_base_ = [
    './_base_/models/dino-4scale_moganet.py',
    './_base_/datasets/coco_detection_ms.py',
    './_base_/schedules/adamw_1x_dino.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    neck=dict(in_channels=[64, 128, 256]),
)
train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False)))
