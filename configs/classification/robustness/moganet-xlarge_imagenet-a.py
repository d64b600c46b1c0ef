_base_ = './moganet-tiny_imagenet-a.py'
model = dict(backbone=dict(arch='xlarge'), head=dict(in_channels=960))
