# For XT and T: weaker mixup.
_base_ = './moganet_in1k_timm.py'
model = dict(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]))
