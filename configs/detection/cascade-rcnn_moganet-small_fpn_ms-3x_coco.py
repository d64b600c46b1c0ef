# Without masks; not in the paper. The recipe is that of Cascade Mask R-CNN.
_base_ = [
    './_base_/models/cascade-rcnn_moganet_fpn.py',
    './_base_/datasets/coco_detection_ms.py',
    './_base_/schedules/adamw_3x.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='small', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_small')),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
