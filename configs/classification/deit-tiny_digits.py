# Patches of 8 px: with 16 tokens an image costs as much as with the other networks; with 4 px four times that.
_base_ = './moganet-xtiny_digits.py'
model = dict(
    backbone=dict(_delete_=True, type='VisionTransformer', arch='deit-tiny', img_size=32, patch_size=8, in_channels=1),
    neck=None,
    head=dict(in_channels=192),
)
