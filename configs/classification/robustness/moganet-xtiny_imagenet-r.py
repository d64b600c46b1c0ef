_base_ = './moganet-tiny_imagenet-r.py'
model = dict(backbone=dict(arch='xtiny'), head=dict(in_channels=192))
