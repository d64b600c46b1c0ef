# TaxiBJ, taxi flow into and out of 32 x 32 cells, four input and four predicted half hours.
data_help = 'copy dataset.npz of TaxiBJ to it, see docs/video_prediction.md'
input_shape = (4, 2, 32, 32)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='TaxiBJ', data_root='data/taxibj', split='train', num_inputs=4, num_targets=4),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='TaxiBJ', data_root='data/taxibj', split='test', num_inputs=4, num_targets=4),
)
test_dataloader = val_dataloader
# As published, each epoch is validated on the test set; slow metrics are computed in the final test only.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
