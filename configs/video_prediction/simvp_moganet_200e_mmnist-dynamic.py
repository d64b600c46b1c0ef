_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/moving-mnist.py',
    './_base_/schedules/onecycle_5e-3.py',
    './_base_/default_runtime.py',
]
# The published number of epochs and test file are unknown; test sequences are generated from MNIST's test images.
train_dataloader = dict(dataset=dict(noise='dynamic'))
noisy_test = dict(type='MovingMNIST', data_root='data/moving_mnist', images='t10k-images-idx3-ubyte', seed=0)
val_dataloader = dict(dataset=dict(_delete_=True, **noisy_test, noise='dynamic'))
test_dataloader = val_dataloader
