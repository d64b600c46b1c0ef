_base_ = '../../_base_/default_runtime.py'
default_scope = 'mmseg'
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=16000, save_best='mIoU', rule='greater'),
    visualization=dict(type='SegVisualizationHook'),
)
visualizer = dict(type='SegLocalVisualizer', alpha=0.6)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
# For test.py --tta: averages the class probabilities of the views that the data set's file lists.
tta_model = dict(type='SegmentationTTAModel')
