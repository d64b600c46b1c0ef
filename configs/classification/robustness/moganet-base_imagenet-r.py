_base_ = './moganet-tiny_imagenet-r.py'
model = dict(backbone=dict(arch='base'), head=dict(in_channels=512))
