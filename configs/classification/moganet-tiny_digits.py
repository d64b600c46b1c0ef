_base_ = './moganet-xtiny_digits.py'
model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=256))
