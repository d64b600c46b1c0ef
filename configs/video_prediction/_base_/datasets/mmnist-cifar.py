# MMNIST-CIFAR: white digits in front of a still image of CIFAR-10, RGB.
data_help = 'copy MNIST, cifar-10-batches-bin and mnist_cifar_test_seq.npy to it, see docs/video_prediction.md'
input_shape = (10, 3, 64, 64)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='MovingMNIST', data_root='data/moving_mnist', backgrounds='cifar-10-batches-bin', num_sequences=10000
    ),
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
# As published, each epoch is validated on the test set; slow metrics are computed in the final test only.
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'))
