_base_ = './imagenet-224_timm_light.py'
input_shape = (3, 256, 256)
train_pipeline = _base_.train_pipeline
train_pipeline[1]['transforms'][0][0]['scale'] = 256
train_pipeline[1]['transforms'][1][0]['scale'] = 256
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = 284
test_pipeline[2]['crop_size'] = 256
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
