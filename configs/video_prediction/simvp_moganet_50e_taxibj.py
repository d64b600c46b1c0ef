_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/taxibj.py',
    './_base_/schedules/cosine_50e_warmup.py',
    './_base_/default_runtime.py',
]
model = dict(num_frames=4, in_channels=2, spatial_dims=32, spatial_depth=2, temporal_dims=256, drop_path_rate=0.1)
