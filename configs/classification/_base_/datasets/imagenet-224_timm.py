# timm's augmentation with the arguments of the MogaNet release: each crop and each geometric operation of RandAugment
# is bilinear or bicubic at random, and erasing fills with noise after normalization.
_base_ = './imagenet-224.py'
crop = dict(type='RandomResizedCrop', scale=224, backend='pillow')
colors = [
    dict(type='AutoContrast'),
    dict(type='Equalize'),
    dict(type='Invert'),
    dict(type='Posterize', magnitude_range=(4, 0)),
    dict(type='Solarize', magnitude_range=(256, 0)),
    dict(type='SolarizeAdd', magnitude_range=(0, 110)),
    dict(type='ColorTransform', magnitude_range=(0, 0.9)),
    dict(type='Contrast', magnitude_range=(0, 0.9)),
    dict(type='Brightness', magnitude_range=(0, 0.9)),
    dict(type='Sharpness', magnitude_range=(0, 0.9)),
]
geometry = [
    dict(type='Rotate', magnitude_range=(0, 30)),
    dict(type='Shear', magnitude_range=(0, 0.3), direction='horizontal'),
    dict(type='Shear', magnitude_range=(0, 0.3), direction='vertical'),
    dict(type='Translate', magnitude_range=(0, 0.45), direction='horizontal'),
    dict(type='Translate', magnitude_range=(0, 0.45), direction='vertical'),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomChoice',
        transforms=[[dict(crop, interpolation='bilinear')], [dict(crop, interpolation='bicubic')]],
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies=[
            *colors,
            *[dict(policy, interpolation='bilinear') for policy in geometry],
            *colors,
            *[dict(policy, interpolation='bicubic') for policy in geometry],
        ],
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124]),
    ),
    dict(
        type='NormalizedRandomErasing',
        erase_prob=0.25,
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        min_aspect_ratio=0.3,
        mean=[103.53, 116.28, 123.675],
        std=[57.375, 57.12, 58.395],
    ),
    dict(type='PackInputs'),
]
del colors, crop, geometry
train_dataloader = dict(drop_last=True, dataset=dict(pipeline=train_pipeline))
