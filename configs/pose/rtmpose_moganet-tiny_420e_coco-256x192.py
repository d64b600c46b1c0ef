# This recipe is ours and has no published result: RTMPose's head and schedule. The switch of the pipeline needs mmdet.
_base_ = [
    './_base_/models/rtmpose_moganet.py',
    './_base_/datasets/coco_256x192_simcc.py',
    './_base_/schedules/adamw_420e.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    head=dict(in_channels=256, input_size=(192, 256), in_featuremap_size=(6, 8), decoder={{_base_.codec}}),
)
custom_hooks = [
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49),
    dict(type='mmdet.PipelineSwitchHook', switch_epoch=390, switch_pipeline={{_base_.train_pipeline_stage2}}),
]
