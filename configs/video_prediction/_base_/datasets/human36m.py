# Human3.6M, 256 x 256 RGB, four frames to four, from clips as folders of pictures. Which sequences the published run
# took of them is not known here.
data_help = 'put folders of frames of Human3.6M into train and test there, see docs/video_prediction.md'
input_shape = (4, 3, 256, 256)
human36m = dict(type='FrameFolders', data_root='data/human36m', size=(256, 256), num_inputs=4, num_targets=4)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**human36m, data_prefix=dict(img='train')),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**human36m, data_prefix=dict(img='test')),
)
test_dataloader = val_dataloader
# Each epoch is held against the test set, as published; the slow metrics are left to the test.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
