_base_ = './moganet-xtiny_fashion-mnist.py'
data_preprocessor = dict(mean=[72.94] * 3, std=[90.02] * 3)  # the gray channel, repeated for its three channels
# torch's BatchNorm momentum: MobileNetV3's 0.01 needs more steps than this schedule has.
model = dict(
    backbone=dict(_delete_=True, type='MobileNetV3', arch='small', norm_cfg=dict(type='BN')), head=dict(in_channels=576)
)
input_shape = (3, 28, 28)
