_base_ = [
    './_base_/models/mask2former_moganet.py',
    './_base_/datasets/digits.py',
    './_base_/schedules/adamw_digits.py',
    './_base_/default_runtime.py',
]
ffn = dict(ffn_cfg=dict(feedforward_channels=512))
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    decode_head=dict(
        in_channels=[32, 64, 96, 192], num_classes=11, num_queries=30,
        pixel_decoder=dict(encoder=dict(num_layers=2, layer_cfg=ffn)),
        transformer_decoder=dict(num_layers=3, layer_cfg=ffn),
        loss_cls=dict(class_weight=[*[1.0] * 11, 0.1]),
        train_cfg=dict(num_points=1024),
    ),
)  # fmt: skip
default_hooks = dict(checkpoint=dict(interval=1000), logger=dict(interval=20))
