# The digit scenes: every digit is an object of five keypoints, predicted from its ground-truth box.
data_help = 'create it with tools/make_digits.py or "mogacore data digits"'
dataset_type, data_mode = 'CocoDataset', 'topdown'  # read by mmpose's inferencers
input_shape = (3, 64, 64)
codec = dict(type='MSRAHeatmap', input_size=(64, 64), heatmap_size=(16, 16), sigma=1, unbiased=True)
metainfo = dict(
    dataset_name='digits',
    keypoint_info={
        0: dict(name='top', id=0, color=[255, 80, 80], type='upper', swap=''),
        1: dict(name='bottom', id=1, color=[80, 200, 80], type='lower', swap=''),
        2: dict(name='left', id=2, color=[90, 150, 255], type='', swap='right'),
        3: dict(name='right', id=3, color=[255, 200, 60], type='', swap='left'),
        4: dict(name='centroid', id=4, color=[255, 255, 255], type='', swap=''),
    },
    skeleton_info={
        0: dict(link=('top', 'centroid'), id=0, color=[255, 80, 80]),
        1: dict(link=('bottom', 'centroid'), id=1, color=[80, 200, 80]),
        2: dict(link=('left', 'centroid'), id=2, color=[90, 150, 255]),
        3: dict(link=('right', 'centroid'), id=3, color=[255, 200, 60]),
    },
    joint_weights=[1.0, 1.0, 1.0, 1.0, 1.0],
    # The mean of COCO's 17 sigmas.
    sigmas=[0.067, 0.067, 0.067, 0.067, 0.067],
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    dict(type='RandomFlip', direction='horizontal'),
    # No rotation: the extreme points of a rotated digit are not its rotated extreme points.
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.25), rotate_prob=0.0),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root='data/digits/scenes',
        data_mode='topdown',
        ann_file='annotations/keypoints_train.json',
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='CocoDataset',
        data_root='data/digits/scenes',
        data_mode='topdown',
        ann_file='annotations/keypoints_val.json',
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file='data/digits/scenes/annotations/keypoints_val.json')
test_evaluator = val_evaluator
auto_scale_lr = dict(enable=False, base_batch_size=64)
