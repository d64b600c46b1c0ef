# InterHand2.6M: trained on all annotations (human and machine), validated on machine annotations, tested on all.
# Batch size 64 (4 GPUs x 16) with learning rates for 128, as in the R50 config of mmpose.
data_help = 'see docs/pose3d.md for the layout of the InterHand2.6M files'
input_shape = (3, 256, 256)
codec = dict(
    type='Hand3DHeatmap',
    image_size=[256, 256],
    root_heatmap_size=64,
    heatmap_size=[64, 64, 64],
    sigma=2.5,
    max_bound=255,
    depth_size=64,
)
meta_keys = (
    'id',
    'img_id',
    'img_path',
    'rotation',
    'img_shape',
    'focal',
    'principal_pt',
    'input_size',
    'input_center',
    'input_scale',
    'hand_type',
    'hand_type_valid',
    'flip',
    'flip_indices',
    'abs_depth',
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    dict(type='HandRandomFlip', prob=0.5),
    dict(type='RandomBBoxTransform', rotate_factor=90.0),
    dict(type='TopdownAffine', input_size=codec['image_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    dict(type='TopdownAffine', input_size=codec['image_size']),
    dict(type='PackPoseInputs', meta_keys=meta_keys),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='InterHand3DDataset',
        data_root='data/interhand2.6m',
        data_mode='topdown',
        ann_file='annotations/all/InterHand2.6M_train_data.json',
        camera_param_file='annotations/all/InterHand2.6M_train_camera.json',
        joint_file='annotations/all/InterHand2.6M_train_joint_3d.json',
        data_prefix=dict(img='images/train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='InterHand3DDataset',
        data_root='data/interhand2.6m',
        data_mode='topdown',
        ann_file='annotations/machine_annot/InterHand2.6M_val_data.json',
        camera_param_file='annotations/machine_annot/InterHand2.6M_val_camera.json',
        joint_file='annotations/machine_annot/InterHand2.6M_val_joint_3d.json',
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        val_dataloader['dataset'],
        ann_file='annotations/all/InterHand2.6M_test_data.json',
        camera_param_file='annotations/all/InterHand2.6M_test_camera.json',
        joint_file='annotations/all/InterHand2.6M_test_joint_3d.json',
        data_prefix=dict(img='images/test/'),
    ),
)
val_evaluator = dict(type='InterHandMetric', modes=['MPJPE', 'MRRPE', 'HandednessAcc'])
test_evaluator = val_evaluator
auto_scale_lr = dict(enable=False, base_batch_size=128)
