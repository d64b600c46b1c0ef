_base_ = './coco_256x192.py'
input_shape = (3, 384, 288)
codec = dict(type='MSRAHeatmap', input_size=(288, 384), heatmap_size=(72, 96), sigma=2)
train_pipeline = _base_.train_pipeline
train_pipeline[5]['input_size'] = codec['input_size']
train_pipeline[6]['encoder'] = codec
test_pipeline = _base_.test_pipeline
test_pipeline[2]['input_size'] = codec['input_size']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
