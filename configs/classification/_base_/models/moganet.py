# attn_force_fp32 is another function, not a precision: False for the weights of the MogaNet release, True for those
# of OpenMixup (its large model without EMA apart). To test the latter:
#   --cfg-options model.backbone.attn_force_fp32=True
# The backbone's own initialisation is the published one; drop_path_rate is the published one of the size.
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
