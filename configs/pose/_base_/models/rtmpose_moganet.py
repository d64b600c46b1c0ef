# RTMPose, arXiv 2303.07399: two classifications per keypoint, of its column and of its row, after gated attention. The
# data set base defines ``codec``; ``in_featuremap_size`` is the input divided by 32, the stride of the last stage.
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(type='MogaNet', channels_last_out=True, out_indices=(3,)),
    head=dict(
        type='RTMCCHead',
        out_channels=17,
        simcc_split_ratio=2.0,
        final_layer_kernel_size=7,
        gau_cfg=dict(
            hidden_dims=256,
            s=128,
            expansion_factor=2,
            dropout_rate=0.0,
            drop_path=0.0,
            act_fn='SiLU',
            use_rel_bias=False,
            pos_enc=False,
        ),
        loss=dict(type='KLDiscretLoss', use_target_weight=True, beta=10.0, label_softmax=True),
    ),
    test_cfg=dict(flip_test=True),
)
