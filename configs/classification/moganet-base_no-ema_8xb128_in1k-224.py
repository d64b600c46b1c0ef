_base_ = './moganet-small_no-ema_8xb128_in1k-224.py'
model = dict(backbone=dict(arch='base'))
