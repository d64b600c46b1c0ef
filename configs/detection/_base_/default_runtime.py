_base_ = '../../_base_/default_runtime.py'
default_scope = 'mmdet'
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'),
    visualization=dict(type='DetVisualizationHook'),
)
env_cfg = dict(cudnn_benchmark=False)  # image sizes differ from batch to batch
visualizer = dict(type='DetLocalVisualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
# For test.py --tta: the views of each image; boxes and masks are merged.
tta_model = dict(type='InstanceTTAModel', iou_threshold=0.5, max_per_img=100)
tta_views = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]
