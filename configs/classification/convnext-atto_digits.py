_base_ = './moganet-xtiny_digits.py'
model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch='atto', in_channels=1, drop_path_rate=0.0, out_indices=(3,)),
    neck=None,
    head=dict(in_channels=320),
)
