_base_ = './common.py'
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MogaNet', arch={{_base_.arch}}, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=32, loss=dict(type='CrossEntropyLoss')),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,  # mmpretrain's script turns it on
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root='data/digits/classification',
        data_prefix='train',
        indices=8,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
