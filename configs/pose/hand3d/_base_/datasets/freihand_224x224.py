# FreiHAND: the last fifth of the training samples is the validation set, the evaluation images are the test set.
# Batch size and the limits of shift, scale and rotation are those of ExPose's hand config (mmhuman3d).
data_help = 'see docs/pose3d.md for the layout of the FreiHAND files'
input_shape = (3, 224, 224)
codec = dict(type='RootRelativeHeatmap', input_size=(224, 224), heatmap_size=(56, 56, 64), sigma=2.5)
meta_keys = (
    'id',
    'img_id',
    'img_path',
    'img_shape',
    'focal',
    'principal_pt',
    'input_size',
    'input_center',
    'input_scale',
    'flip_indices',
    'abs_depth',
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.0),
    dict(
        type='RandomBBoxTransform',
        shift_factor=0.2,
        shift_prob=1.0,
        scale_factor=(0.8, 1.2),
        rotate_factor=60.0,
        rotate_prob=0.6,
    ),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.0),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs', meta_keys=meta_keys),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='FreiHAND', data_root='data/freihand', subset='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(type='FreiHAND', data_root='data/freihand', subset='val', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(type='FreiHAND', data_root='data/freihand', subset='test', test_mode=True, pipeline=test_pipeline),
)
val_evaluator = dict(type='HandJointMetric', root=0)
test_evaluator = val_evaluator
auto_scale_lr = dict(enable=False, base_batch_size=64)
