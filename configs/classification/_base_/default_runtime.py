_base_ = '../../_base_/default_runtime.py'
default_scope = 'mmpretrain'
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(max_keep_ckpts=3, save_best='auto', rule='greater'),  # the first score of val_evaluator
    visualization=dict(type='VisualizationHook', enable=False),
)
visualizer = dict(type='UniversalVisualizer')
# For test.py --tta: the views of each image, inserted before the last step of the test pipeline.
tta_model = dict(type='AverageClsScoreTTA')
tta_views = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]
