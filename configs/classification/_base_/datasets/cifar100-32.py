# CIFAR-100 with OpenMixup's augmentation for MogaNet; images are RGB.
data_help = 'see docs/data.md#cifar-100'
input_shape = (3, 32, 32)
data_preprocessor = dict(num_classes=100, mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255])
train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4, padding_mode='reflect'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies=[
            dict(type='AutoContrast'),
            dict(type='Brightness', magnitude_range=(0.05, 0.95)),
            dict(type='ColorTransform', magnitude_range=(0.05, 0.95)),
            dict(type='Contrast', magnitude_range=(0.05, 0.95)),
            dict(type='Equalize'),
            dict(type='RandomApply', transforms=[]),  # the identity
            dict(type='Posterize', magnitude_range=(4, 8)),
            dict(type='Rotate', magnitude_range=(0, 30)),
            dict(type='Sharpness', magnitude_range=(0.05, 0.95)),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='horizontal'),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='vertical'),
            dict(type='Solarize', magnitude_range=(256, 0)),
            dict(type='Translate', magnitude_range=(0, 0.3), direction='horizontal'),
            dict(type='Translate', magnitude_range=(0, 0.3), direction='vertical'),
        ],
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[114, 123, 125], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[114, 123, 125],
        fill_std=[52, 51, 51],
    ),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=100,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CIFAR100', data_root='data/cifar100', split='train', download=False, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CIFAR100', data_root='data/cifar100', split='test', download=False, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
