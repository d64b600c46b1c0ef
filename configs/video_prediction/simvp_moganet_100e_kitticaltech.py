_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/kitticaltech.py',
    './_base_/schedules/onecycle_5e-3.py',
    './_base_/default_runtime.py',
]
model = dict(in_channels=3, num_targets=1, spatial_depth=2, temporal_dims=256, temporal_depth=6, drop_path_rate=0.1)
train_cfg = dict(max_epochs=100)
