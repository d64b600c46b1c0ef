_base_ = [
    './_base_/models/simvp.py',
    './_base_/datasets/moving-mnist.py',
    './_base_/schedules/onecycle_1e-3.py',
    './_base_/default_runtime.py',
]
