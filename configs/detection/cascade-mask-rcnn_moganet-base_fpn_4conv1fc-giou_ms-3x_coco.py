_base_ = [
    './_base_/models/cascade-mask-rcnn_moganet_fpn_4conv1fc-giou.py',
    './_base_/datasets/coco_instance_ms.py',
    './_base_/schedules/adamw_3x_layer-decay.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='base', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_base')),
    neck=dict(in_channels=[64, 160, 320, 512]),
)
