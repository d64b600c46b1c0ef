# attn_force_fp32 changes the gate function, not only its precision: the MogaNet release was trained with False,
# OpenMixup with True (except for its large model without EMA).
# The backbone uses the published initialization, and the published drop_path_rate of its size.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MogaNet', arch='tiny', out_indices=(3,), attn_force_fp32=False),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=256,
        loss=dict(type='CrossEntropyLoss'),
        topk=(1, 5),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
)
