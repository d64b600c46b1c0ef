_base_ = './moganet-xtiny_digits.py'
data_preprocessor = dict(mean=[79.58] * 3, std=[90.79] * 3)  # the gray channel, repeated for its three channels
# torch's BatchNorm momentum: MobileNetV3's 0.01 needs more steps than this schedule has.
model = dict(
    backbone=dict(_delete_=True, type='MobileNetV3', arch='small', norm_cfg=dict(type='BN')), head=dict(in_channels=576)
)
input_shape = (3, 32, 32)
