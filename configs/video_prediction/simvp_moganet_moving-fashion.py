_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/moving-fashion.py',
    './_base_/schedules/onecycle_5e-3.py',
    './_base_/default_runtime.py',
]
model = dict(spatial_dims=16, temporal_dims=128, temporal_depth=4)
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=50))
