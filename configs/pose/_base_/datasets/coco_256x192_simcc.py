# RTMPose's augmentation and targets, without the blur and the dropped squares, which need albumentations; weaker in the
# last epochs (``train_pipeline_stage2``). Batch size 1024 (8 GPUs x 128).
_base_ = './coco_256x192.py'
simcc = dict(
    type='SimCCLabel',
    input_size=(192, 256),
    sigma=(4.9, 5.66),
    simcc_split_ratio=2.0,
    normalize=False,
    use_dark=False,
)
codec = dict(_delete_=True, **simcc)
load = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomHalfBody', min_total_keypoints=9, prob=0.3),
]
encode = [
    dict(type='TopdownAffine', input_size=simcc['input_size']),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='GenerateTarget', encoder=simcc),
    dict(type='PackPoseInputs'),
]
train_pipeline = [*load, dict(type='RandomBBoxTransform', scale_factor=[0.6, 1.4], rotate_factor=80.0), *encode]
train_pipeline_stage2 = [
    *load,
    dict(type='RandomBBoxTransform', shift_factor=0.0, scale_factor=[0.75, 1.25], rotate_factor=60.0),
    *encode,
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=1024)
