_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/weather.py',
    './_base_/schedules/cosine_50e.py',
    './_base_/default_runtime.py',
]
model = dict(num_frames=12, spatial_dims=32, spatial_depth=2, temporal_dims=256, drop_path_rate=0.2)
optim_wrapper = dict(optimizer=dict(lr=5e-3))
