# RSB A3: binary cross-entropy against the mixed one-hot targets.
_base_ = './moganet.py'
model = dict(
    backbone=dict(attn_force_fp32=True),  # with which all published weights of this recipe were trained
    head=dict(loss=dict(use_sigmoid=True)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]),
)
