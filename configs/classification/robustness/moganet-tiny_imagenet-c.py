# For the weights of the MogaNet release, and others with its gate function, attn_force_fp32=False.
_base_ = [
    '../_base_/models/moganet_in1k_timm.py',
    '../_base_/datasets/imagenet-c.py',
    '../_base_/default_runtime.py',
]
