# ADE20K 2016, 150 classes, "other" (0) ignored: 20,210 training, 2,000 validation images. Batch size 32 (8 GPUs x 4).
data_help = 'see docs/data.md for the layout of the ADE20K files'
input_shape = (3, 512, 2048)  # size of the published figures
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Both sides are enlarged to a multiple of 32, as in the published tests.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# For test.py --tta: six sizes instead of one, each also mirrored, as in the published multi-scale test.
tta_views = [
    [
        dict(type='Resize', scale=(int(2048 * ratio), int(512 * ratio)), keep_ratio=True)
        for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    ],
    [dict(type='ResizeToMultiple', size_divisor=32)],
    [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
auto_scale_lr = dict(enable=False, base_batch_size=32)
