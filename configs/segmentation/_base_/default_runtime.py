_base_ = '../../_base_/default_runtime.py'
default_scope = 'mmseg'
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=16000, save_best='mIoU', rule='greater'),
    visualization=dict(type='SegVisualizationHook'),
)
visualizer = dict(type='SegLocalVisualizer', alpha=0.6)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
# For test.py --tta: the views of each image; class scores are averaged.
tta_model = dict(type='SegTTAModel')
tta_views = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]
