_base_ = './moganet-xtiny_fashion-mnist.py'
model = dict(
    backbone=dict(_delete_=True, type='VisionTransformer', arch='deit-tiny', img_size=28, patch_size=4, in_channels=1),
    neck=None,
    head=dict(in_channels=192),
)
