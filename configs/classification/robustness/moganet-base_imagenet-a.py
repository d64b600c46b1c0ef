_base_ = './moganet-tiny_imagenet-a.py'
model = dict(backbone=dict(arch='base'), head=dict(in_channels=512))
