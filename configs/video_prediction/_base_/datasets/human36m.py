# Human3.6M, 256 x 256 RGB, four input and four predicted frames, from clips as folders of images. The selection of
# sequences in the published run is unknown.
data_help = 'add the folders train and test with clips of Human3.6M, see docs/video_prediction.md'
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
# As published, each epoch is validated on the test set; slow metrics are computed in the final test only.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
