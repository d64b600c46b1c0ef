default_scope = 'mmdet'
custom_imports = dict(imports=['mogacore.registry'], allow_failed_imports=False)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='coco/bbox_mAP', rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
)
env_cfg = dict(
    cudnn_benchmark=False,  # image sizes differ from batch to batch
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
# For test.py --tta: the views of each image, whose boxes and masks are merged.
tta_model = dict(type='InstanceTTAModel', iou_threshold=0.5, max_per_img=100)
tta_views = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]
