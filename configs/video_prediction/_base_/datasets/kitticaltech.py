# Training on KITTI, test on Caltech Pedestrian, 128 x 160 RGB, ten input frames and one predicted frame.
data_help = 'copy the arrays of KITTI and Caltech Pedestrian to it, see docs/video_prediction.md'
input_shape = (10, 3, 128, 160)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='KittiCaltech', data_root='data/kitticaltech', split='train', num_inputs=10, num_targets=1),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='KittiCaltech', data_root='data/kitticaltech', split='test', num_inputs=10, num_targets=1),
)
test_dataloader = val_dataloader
# As published, each epoch is validated on the test set; slow metrics are computed in the final test only.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
