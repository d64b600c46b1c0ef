# scikit-learn's handwritten digits, 32 x 32 gray, in class folders: 1,442 training images, repeated three times per
# epoch, and 355 validation images.
data_help = 'create it with tools/make_digits.py or "mogacore data digits"'
input_shape = (1, 32, 32)
data_preprocessor = dict(num_classes=10, mean=[79.58], std=[90.79])
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='grayscale'),
    dict(type='RandomCrop', crop_size=32, padding=3),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='grayscale'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(
            type='CustomDataset', data_root='data/digits/classification', data_prefix='train', pipeline=train_pipeline
        ),
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset', data_root='data/digits/classification', data_prefix='val', pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
