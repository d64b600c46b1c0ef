# SegFormer: ten times the learning rate for the head.
_base_ = './adamw_160k.py'
optim_wrapper = dict(optimizer=dict(lr=6e-5), paramwise_cfg=dict(custom_keys={'decode_head': dict(lr_mult=10.0)}))
