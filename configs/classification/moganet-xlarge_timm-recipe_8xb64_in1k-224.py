_base_ = './moganet-large_timm-recipe_8xb64_in1k-224.py'
model = dict(backbone=dict(arch='xlarge'), head=dict(in_channels=960))
