# A peer for moganet-xtiny_fashion-mnist.py: only the backbone differs; this one pools by itself.
_base_ = './moganet-xtiny_fashion-mnist.py'
model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch='atto', in_channels=1, drop_path_rate=0.0, out_indices=(3,)),
    neck=None,
    head=dict(in_channels=320),
)
