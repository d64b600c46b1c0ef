_base_ = './moganet-small_1xb100_cifar100-32.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.3))
