# Fine-tuning at 384; tests use the whole image, resized to a square.
_base_ = './imagenet-224.py'
input_shape = (3, 384, 384)
train_pipeline = _base_.train_pipeline
train_pipeline[1]['scale'] = 384
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(384, 384), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=32, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
