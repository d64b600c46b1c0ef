# Patches of 8 px give 16 tokens per image, at a cost similar to the other networks; 4 px would cost four times that.
_base_ = './moganet-xtiny_digits.py'
model = dict(
    backbone=dict(_delete_=True, type='VisionTransformer', arch='deit-tiny', img_size=32, patch_size=8, in_channels=1),
    neck=None,
    head=dict(in_channels=192),
)
