_base_ = './moganet-tiny_imagenet-c.py'
model = dict(backbone=dict(arch='xtiny'), head=dict(in_channels=192))
