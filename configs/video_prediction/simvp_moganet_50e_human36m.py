_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/human36m.py',
    './_base_/schedules/cosine_50e.py',
    './_base_/default_runtime.py',
]
model = dict(num_frames=4, in_channels=3, temporal_dims=256, temporal_depth=6, drop_path_rate=0.1)
