# MMNIST-CIFAR: white digits before a still image of CIFAR-10, RGB.
data_help = 'put MNIST, cifar-10-batches-bin and mnist_cifar_test_seq.npy there, see docs/video_prediction.md'
input_shape = (10, 3, 64, 64)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='MovingMNIST', data_root='data/moving_mnist', backgrounds='cifar-10-batches-bin'),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='SequenceFile', data_root='data/moving_mnist', file='mnist_cifar_test_seq.npy'),
)
test_dataloader = val_dataloader
# Each epoch is held against the test set, as published; the slow metrics are left to the test.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
