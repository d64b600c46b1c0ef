# Baseline for moganet-xtiny_fashion-mnist.py: only the backbone differs, which includes the pooling. It rounds sizes
# down, so the last stage would be empty for 28 px; images are padded to 32.
_base_ = './moganet-xtiny_fashion-mnist.py'
data_preprocessor = dict(pad_size_divisor=32)
model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch='atto', in_channels=1, drop_path_rate=0.0, out_indices=(3,)),
    neck=None,
    head=dict(in_channels=320),
)
input_shape = (1, 32, 32)  # after padding
