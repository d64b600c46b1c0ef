_base_ = './common.py'
default_scope = 'mmpose'
codec = dict(type='MSRAHeatmap', input_size=(64, 64), heatmap_size=(16, 16), sigma=2)
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(type='PoseDataPreprocessor'),
    backbone=dict(type='MogaNet', arch={{_base_.arch}}, out_indices=(3,)),
    head=dict(
        type='HeatmapHead',
        in_channels=32,
        out_channels=5,
        deconv_out_channels=(16, 16, 16),
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
        decoder=codec,
    ),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root='data/digits/scenes',
        data_mode='topdown',
        ann_file='annotations/keypoints_train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(
            dataset_name='digits',
            keypoint_info={
                i: dict(name=name, id=i, color=[0, 255, 0], type='', swap=swap)
                for i, (name, swap) in enumerate(
                    [('top', ''), ('bottom', ''), ('left', 'right'), ('right', 'left'), ('centroid', '')]
                )
            },
            skeleton_info={},
            joint_weights=[1.0] * 5,
            sigmas=[0.05] * 5,
        ),
        pipeline=[
            dict(type='LoadImage'),
            dict(type='GetBBoxCenterScale'),
            dict(type='TopdownAffine', input_size=codec['input_size']),
            dict(type='GenerateTarget', encoder=codec),
            dict(type='PackPoseInputs'),
        ],
    ),
)
