# As published, only the training sequences are noisy; the test set is that of Moving MNIST.
_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/moving-mnist.py',
    './_base_/schedules/onecycle_5e-3.py',
    './_base_/default_runtime.py',
]
train_dataloader = dict(dataset=dict(noise='perceptual'))
