# One 3D heatmap per joint, with depths as channels: the right-hand branch of InterNet. The data set base defines
# ``codec``.
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(type='MogaNet', channels_last_out=True, out_indices=(3,)),
    head=dict(
        type='HeatmapHead',
        out_channels=21 * 64,
        deconv_out_channels=(256, 256, 256),
        deconv_kernel_sizes=(4, 4, 4),
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
    ),
    # mmpose's training accuracy is for 2D heatmaps only.
    train_cfg=dict(compute_acc=False),
    test_cfg=dict(flip_test=False),
)
