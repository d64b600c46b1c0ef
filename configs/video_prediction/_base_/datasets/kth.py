# KTH, people in motion, 128 x 128 grey, ten frames to twenty; persons 1 to 16 for training, 17 to 25 for the test.
data_help = 'put the six folders of actions of KTH there, see docs/video_prediction.md'
input_shape = (10, 1, 128, 128)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='KTH', data_root='data/kth', split='train'),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='KTH', data_root='data/kth', split='test'),
)
test_dataloader = val_dataloader
# Each epoch is held against the test set, as published; the slow metrics are left to the test.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
