# SimVPv2's own recipe.
_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/mmnist-cifar.py',
    './_base_/schedules/onecycle_1e-3.py',
    './_base_/default_runtime.py',
]
model = dict(in_channels=3, translator='gSTA')
