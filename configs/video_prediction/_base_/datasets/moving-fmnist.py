# Moving Fashion-MNIST: as Moving MNIST, with Fashion-MNIST's training images and its own fixed test sequences.
data_help = (
    'put train-images-idx3-ubyte.gz of Fashion-MNIST and fmnist_test_seq.npy there, see docs/video_prediction.md'
)
input_shape = (10, 1, 64, 64)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='MovingMNIST', data_root='data/moving_fmnist'),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='SequenceFile', data_root='data/moving_fmnist', file='fmnist_test_seq.npy'),
)
test_dataloader = val_dataloader
# Each epoch is held against the test set, as published; the slow metrics are left to the test.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
