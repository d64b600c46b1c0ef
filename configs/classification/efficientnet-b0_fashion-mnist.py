_base_ = './mobilenetv3-small_fashion-mnist.py'
model = dict(backbone=dict(_delete_=True, type='EfficientNet', arch='b0'), head=dict(in_channels=1280))
