# ImageNet-C (arXiv 1903.12261): 15 corruptions in 5 severities.
_base_ = './imagenet-variants.py'
data_help = 'see docs/data.md#robustness-of-classifiers'
test_dataloader = dict(dataset=dict(type='ImageNetC', data_root='data/imagenet-c'))
test_evaluator = dict(type='CorruptionError')
