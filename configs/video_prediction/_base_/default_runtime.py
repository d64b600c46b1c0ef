_base_ = '../../_base_/default_runtime.py'
default_scope = 'mmengine'
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(save_best='video/mse', rule='less'),
    visualization=dict(type='SequenceVisualizationHook', enable=False),
)
visualizer = dict(type='Visualizer')
randomness = dict(seed=42)
