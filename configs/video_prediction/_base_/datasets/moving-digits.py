# The bundled handwritten digits as Moving MNIST: training sequences of 1,442 digits are generated on the fly, the fixed
# test sequences show the other 355. The test also scores repetition of the last frame (copy_last).
data_help = 'create it with tools/make_digits.py or "mogacore data digits"'
input_shape = (10, 1, 64, 64)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='MovingDigits', split='train', num_sequences=4800),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='SequenceFile', data_root='data/digits/moving', file='mnist_test_seq.npy'),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae'))
test_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'ssim', 'psnr'), copy_last=True)
