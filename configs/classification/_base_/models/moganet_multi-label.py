# One sigmoid per class, so that an image may have any number of classes.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MogaNet', arch='tiny', out_indices=(3,), attn_force_fp32=False),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='MultiLabelLinearClsHead',
        in_channels=256,
        loss=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        init_cfg=dict(type='Normal', layer='Linear', std=0.01),
    ),
)
