# The synthetic hands in InterHand2.6M's file format, at a quarter of the size.
_base_ = './interhand3d_256x256.py'
data_help = 'create it with tools/make_hands.py or "mogacore data hands"'
input_shape = (3, 64, 64)
codec = dict(
    type='Hand3DHeatmap',
    image_size=[64, 64],
    root_heatmap_size=16,
    heatmap_size_root=16,
    heatmap_size=[16, 16, 16],
    sigma=2.0,
    max_bound=10,  # lower than 255, which the last layer would not reach in a thousand steps
    depth_size=16,
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    dict(type='HandRandomFlip', prob=0.5),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.25), rotate_factor=180.0),
    dict(type='TopdownAffine', input_size=codec['image_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs', meta_keys=_base_.meta_keys),
]
test_pipeline = _base_.test_pipeline
test_pipeline[2]['input_size'] = codec['image_size']
train_dataloader = dict(
    batch_size=16, num_workers=1, dataset=dict(data_root='data/hands/interhand2.6m', pipeline=train_pipeline)
)
val_dataloader = dict(
    batch_size=16, num_workers=1, dataset=dict(data_root='data/hands/interhand2.6m', pipeline=test_pipeline)
)
test_dataloader = dict(
    batch_size=16, num_workers=1, dataset=dict(data_root='data/hands/interhand2.6m', pipeline=test_pipeline)
)
val_evaluator = [_base_.val_evaluator, dict(type='HandJointMetric', root=20, mean_pose=True)]
test_evaluator = val_evaluator
auto_scale_lr = dict(base_batch_size=16)
