# SimVPv2's own recipe.
_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/kth.py',
    './_base_/schedules/onecycle_1e-3.py',
    './_base_/default_runtime.py',
]
model = dict(
    num_targets=20, spatial_depth=2, temporal_dims=256, temporal_depth=6, drop_path_rate=0.2, translator='gSTA'
)
train_cfg = dict(max_epochs=100)
