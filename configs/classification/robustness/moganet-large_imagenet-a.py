_base_ = './moganet-tiny_imagenet-a.py'
model = dict(backbone=dict(arch='large'), head=dict(in_channels=640))
