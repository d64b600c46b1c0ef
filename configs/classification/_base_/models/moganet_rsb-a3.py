# RSB A3: binary cross-entropy against the mixed one-hot targets.
_base_ = './moganet.py'
model = dict(
    head=dict(loss=dict(use_sigmoid=True)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]),
)
