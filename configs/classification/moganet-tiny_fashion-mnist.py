_base_ = './moganet-xtiny_fashion-mnist.py'
model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=256))
