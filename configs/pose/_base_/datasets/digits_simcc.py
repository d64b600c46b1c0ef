# The digit scenes with RTMPose's targets. The last map of an input of 80 x 80 is 3 x 3: sizes are rounded up.
_base_ = './digits.py'
input_shape = (3, 80, 80)
simcc = dict(
    type='SimCCLabel',
    input_size=(80, 80),
    sigma=(3.16, 3.16),
    simcc_split_ratio=2.0,
    normalize=False,
    use_dark=False,
)
codec = dict(_delete_=True, **simcc)
train_pipeline = _base_.train_pipeline
train_pipeline[4]['input_size'] = simcc['input_size']
train_pipeline[5]['encoder'] = simcc
test_pipeline = _base_.test_pipeline
test_pipeline[2]['input_size'] = simcc['input_size']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
