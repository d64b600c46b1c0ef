_base_ = '../../_base_/default_runtime.py'
default_scope = 'mmpose'
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=10, save_best='coco/AP', rule='greater'),
    visualization=dict(type='PoseVisualizationHook', enable=False),
)
visualizer = dict(type='PoseLocalVisualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True, num_digits=6)
