# Human3.6M, 256 x 256, four input and four predicted frames, every fifth frame of a clip; the sequences are those of
# the published lists. As in the published loader, the channels are in the order blue, green, red.
data_help = 'add the folder images and the lists train.txt and test.txt, see docs/video_prediction.md'
input_shape = (4, 3, 256, 256)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='FrameFolders',
        data_root='data/human36m',
        ann_file='train.txt',
        size=(256, 256),
        frame_step=5,
        interpolation='bicubic',
        channel_order='bgr',
        num_inputs=4,
        num_targets=4,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(train_dataloader['dataset'], ann_file='test.txt'),
)
test_dataloader = val_dataloader
# As published, each epoch is validated on the test set; slow metrics are computed in the final test only.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
