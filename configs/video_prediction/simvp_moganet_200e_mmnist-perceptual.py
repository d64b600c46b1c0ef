_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/moving-mnist.py',
    './_base_/schedules/onecycle_5e-3.py',
    './_base_/default_runtime.py',
]
# The published number of epochs is unknown; the noise on the fixed test sequences is seeded with their index.
train_dataloader = dict(dataset=dict(noise='perceptual'))
val_dataloader = dict(dataset=dict(noise='perceptual'))
test_dataloader = val_dataloader
