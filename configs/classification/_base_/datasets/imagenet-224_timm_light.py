# For XT and T: RandAugment of magnitude 7.
_base_ = './imagenet-224_timm.py'
train_pipeline = _base_.train_pipeline
train_pipeline[3]['magnitude_level'] = 7
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
