_base_ = './moganet-xtiny_digits.py'
data_preprocessor = dict(mean=[79.58] * 3, std=[90.79] * 3)  # its three channels get the grey one each
# The momentum of BatchNorm is torch's: its own, 0.01, needs more steps than there are here.
model = dict(
    backbone=dict(_delete_=True, type='MobileNetV3', arch='small', norm_cfg=dict(type='BN')), head=dict(in_channels=576)
)
input_shape = (3, 32, 32)
