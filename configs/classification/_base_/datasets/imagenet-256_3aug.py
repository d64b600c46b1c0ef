# 3-Augment (DeiT III, arXiv 2204.07118): one of grayscale, solarize and blur, then color jitter.
_base_ = './imagenet-256_light.py'
train_pipeline = [
    *_base_.train_pipeline[:3],
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomGrayscale', prob=1.0, keep_channels=True, channel_weights=(0.114, 0.587, 0.2989))],
            [dict(type='Solarize', thr=128, prob=1.0)],
            [dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=1.0)],
        ],
    ),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
