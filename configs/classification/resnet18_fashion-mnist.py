# Baseline for moganet-xtiny_fashion-mnist.py: only the backbone differs.
_base_ = './moganet-xtiny_fashion-mnist.py'
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, in_channels=1, out_indices=(3,)),
    head=dict(in_channels=512),
)
