# RTMDet's augmentation at 640 x 640: mosaics and mixed images from a cache, then single images for the last epochs
# (``train_pipeline_stage2``). Batch size 128 (8 GPUs x 16).
_base_ = './coco_detection.py'
input_shape = (3, 640, 640)
size = (640, 640)
pad = dict(type='Pad', size=size, pad_val=dict(img=(114, 114, 114)))
color_and_flip = [dict(type='YOLOXHSVRandomAug'), dict(type='RandomFlip', prob=0.5), pad]
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='CachedMosaic', img_scale=size, pad_val=114.0),
    dict(type='RandomResize', scale=(1280, 1280), ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=size),
    *color_and_flip,
    dict(
        type='CachedMixUp',
        img_scale=size,
        ratio_range=(1.0, 1.0),
        max_cached_images=20,
        pad_val=(114, 114, 114),
    ),
    dict(type='PackDetInputs'),
]
train_pipeline_stage2 = [
    *_base_.train_pipeline[:2],
    dict(type='RandomResize', scale=size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=size),
    *color_and_flip,
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size, keep_ratio=True),
    pad,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(batch_size=16, batch_sampler=None, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=128)
