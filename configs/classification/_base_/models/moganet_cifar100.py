# OpenMixup's settings for CIFAR-100: a stem without strides, for images of 32 px.
_base_ = './moganet_in1k.py'
model = dict(backbone=dict(stem_strides=(1, 1)), head=dict(num_classes=100))
