# RSB A3 (arXiv 2110.00476): train at 160 with RandAugment of magnitude 6, test at 224 with crop ratio 0.95.
_base_ = './imagenet-224.py'
train_pipeline = [*_base_.train_pipeline[:4], dict(type='PackInputs')]
train_pipeline[1]['scale'] = 160
train_pipeline[3]['magnitude_level'] = 6
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = 236
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
