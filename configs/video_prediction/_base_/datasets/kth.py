# KTH actions, 128 x 128 gray, ten input and twenty predicted frames; training on persons 1 to 16, test on 17 to 25.
data_help = 'copy the six action folders of KTH to it, see docs/video_prediction.md'
input_shape = (10, 1, 128, 128)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='KTH', data_root='data/kth', split='train', num_inputs=10, num_targets=20),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='KTH', data_root='data/kth', split='test', num_inputs=10, num_targets=20),
)
test_dataloader = val_dataloader
# As published, each epoch is validated on the test set; slow metrics are computed in the final test only.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
