# Moving Fashion-MNIST from the four IDX files only: training sequences of the training images, generated on the fly;
# 200 test sequences of the test images, the same in every run.
data_help = 'copy the Fashion-MNIST IDX files (.gz or not) to it, see docs/data.md'
input_shape = (10, 1, 64, 64)
fashion = dict(type='MovingMNIST', data_root='data/fashion-mnist')
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**fashion, images='train-images-idx3-ubyte', num_sequences=4800),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**fashion, images='t10k-images-idx3-ubyte', num_sequences=200, seed=0),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'), copy_last=True)
