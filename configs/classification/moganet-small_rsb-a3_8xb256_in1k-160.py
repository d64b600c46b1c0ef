_base_ = './moganet-tiny_rsb-a3_8xb256_in1k-160.py'
model = dict(backbone=dict(arch='small'), head=dict(in_channels=512))
