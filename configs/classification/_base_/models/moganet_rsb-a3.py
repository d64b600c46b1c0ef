# RSB A3: binary cross-entropy with the mixed one-hot targets.
_base_ = './moganet.py'
model = dict(
    backbone=dict(attn_force_fp32=True),
    head=dict(loss=dict(use_sigmoid=True), init_cfg=dict(type='Normal', std=0.01)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]),
)
