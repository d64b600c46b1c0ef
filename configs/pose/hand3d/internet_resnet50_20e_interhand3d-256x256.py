# The baseline of mmpose. Its published test results: MPJPE 9.69 mm (one hand), 13.72 mm (two), 11.86 mm (all), MRRPE
# 29.27 mm, handedness accuracy 0.99.
_base_ = './internet_moganet-tiny_20e_interhand3d-256x256.py'
feature = dict(in_channels=2048)
model = dict(
    backbone=dict(
        _delete_=True, type='ResNet', depth=50, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')
    ),
    head=dict(keypoint_head_cfg=feature, root_head_cfg=feature, hand_type_head_cfg=feature),
)
