_base_ = [
    './_base_/models/td-hm_moganet.py',
    './_base_/datasets/coco_256x192.py',
    './_base_/schedules/adam_210e.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        arch='tiny', drop_path_rate=0.15, init_cfg=dict(type='Pretrained', checkpoint='mogacore://moganet_tiny')
    ),
    head=dict(in_channels=256, decoder={{_base_.codec}}),
)
