# The synthetic hands in FreiHAND's file format, at a fraction of the size; validated on the evaluation images.
_base_ = './freihand_224x224.py'
data_help = 'create it with tools/make_hands.py or "mogacore data hands"'
input_shape = (3, 64, 64)
# A Gaussian with a low peak: in a thousand steps the last layer would not reach 255.
codec = dict(type='RootRelativeHeatmap', input_size=(64, 64), heatmap_size=(16, 16, 16), sigma=2.0, max_value=1.0)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.0),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.25), rotate_factor=180.0, rotate_prob=1.0),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs', meta_keys=_base_.meta_keys),
]
test_pipeline = _base_.test_pipeline
test_pipeline[2]['input_size'] = codec['input_size']
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(data_root='data/hands/freihand', subset='trainval', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=16, num_workers=1, dataset=dict(data_root='data/hands/freihand', subset='test', pipeline=test_pipeline)
)
test_dataloader = dict(
    batch_size=16, num_workers=1, dataset=dict(data_root='data/hands/freihand', pipeline=test_pipeline)
)
val_evaluator = dict(mean_pose=True)
test_evaluator = val_evaluator
auto_scale_lr = dict(base_batch_size=16)
