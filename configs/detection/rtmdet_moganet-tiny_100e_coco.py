# This recipe is ours and has no published result: the widths of RTMDet-tiny, and RTMDet's schedule for pretrained
# ConvNeXt and Swin.
_base_ = [
    './_base_/models/rtmdet_moganet.py',
    './_base_/datasets/coco_detection_mosaic.py',
    './_base_/schedules/adamw_100e.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')),
    neck=dict(in_channels=[64, 128, 256], out_channels=96, num_csp_blocks=1),
    bbox_head=dict(in_channels=96, feat_channels=96, exp_on_reg=False),
)
custom_hooks = [
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49),
    dict(type='PipelineSwitchHook', switch_epoch=90, switch_pipeline={{_base_.train_pipeline_stage2}}),
]
