_base_ = './moganet-tiny_imagenet-c.py'
model = dict(backbone=dict(arch='small'), head=dict(in_channels=512))
