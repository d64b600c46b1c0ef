# InterNet: from the last stage, 3D heatmaps of two hands, the depth between the wrists, and which hands are present.
# The data set base defines ``codec``.
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(type='MogaNet', channels_last_out=True, out_indices=(3,)),
    head=dict(
        type='InternetHead',
        keypoint_head_cfg=dict(
            out_channels=21 * 64,
            depth_size=64,
            deconv_out_channels=(256, 256, 256),
            deconv_kernel_sizes=(4, 4, 4),
        ),
        root_head_cfg=dict(heatmap_size=64, hidden_dims=(512,)),
        hand_type_head_cfg=dict(num_labels=2, hidden_dims=(512,)),
    ),
    test_cfg=dict(flip_test=False),
)
