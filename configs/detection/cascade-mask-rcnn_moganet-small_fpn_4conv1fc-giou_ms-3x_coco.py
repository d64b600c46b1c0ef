_base_ = [
    './_base_/models/cascade-mask-rcnn_moganet_fpn_4conv1fc-giou.py',
    './_base_/datasets/coco_instance_ms.py',
    './_base_/schedules/adamw_3x_warmup-1000.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='small', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_small')),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
