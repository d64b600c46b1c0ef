_base_ = [
    './_base_/models/moganet_rsb-a3.py',
    './_base_/datasets/imagenet-160_rsb-a3.py',
    './_base_/schedules/lamb_100e.py',
    './_base_/default_runtime.py',
]
