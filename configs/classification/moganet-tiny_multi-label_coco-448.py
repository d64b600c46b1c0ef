# This recipe is ours and has no published result: mmpretrain's multi-label head at the size of its CSRA config.
_base_ = [
    './_base_/models/moganet_multi-label.py',
    './_base_/datasets/coco_labels-448.py',
    './_base_/schedules/adamw_20e_multi-label.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')), head=dict(num_classes=80)
)
