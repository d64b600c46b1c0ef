_base_ = [
    './_base_/models/dino-4scale_moganet.py',
    './_base_/datasets/digits_detection.py',
    './_base_/schedules/adamw_digits.py',
    './_base_/default_runtime.py',
]
layer = dict(ffn_cfg=dict(feedforward_channels=512))
model = dict(
    num_queries=50,
    backbone=dict(arch='xtiny', drop_path_rate=0.0),
    neck=dict(in_channels=[64, 96, 192]),
    encoder=dict(num_layers=2, layer_cfg=layer),
    decoder=dict(num_layers=3, layer_cfg=layer),
    bbox_head=dict(num_classes=10),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    test_cfg=dict(max_per_img=50),
)
default_hooks = dict(logger=dict(interval=20))
