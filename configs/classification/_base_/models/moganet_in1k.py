# OpenMixup's settings for ImageNet-1K: label smoothing, and mixup or cutmix with equal probability for every batch.
_base_ = './moganet.py'
model = dict(
    backbone=dict(attn_force_fp32=True),
    head=dict(
        loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='Normal', std=0.01),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
