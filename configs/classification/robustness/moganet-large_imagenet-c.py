_base_ = './moganet-tiny_imagenet-c.py'
model = dict(backbone=dict(arch='large'), head=dict(in_channels=640))
