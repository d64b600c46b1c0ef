_base_ = './moganet-tiny_timm-recipe_8xb128_in1k-256.py'
model = dict(backbone=dict(arch='xtiny'), head=dict(in_channels=192))
optim_wrapper = dict(optimizer=dict(weight_decay=0.03))
