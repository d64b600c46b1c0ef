_base_ = './moganet-tiny_imagenet-v2.py'
model = dict(backbone=dict(arch='base'), head=dict(in_channels=512))
