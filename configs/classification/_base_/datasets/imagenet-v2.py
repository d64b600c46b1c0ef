# ImageNet-V2 (arXiv 1902.10811), the images of matched frequency.
_base_ = './imagenet-variants.py'
data_help = 'see docs/data.md#robustness-of-classifiers'
test_dataloader = dict(dataset=dict(type='ImageNetV2', data_root='data/imagenetv2-matched-frequency-format-val'))
test_evaluator = dict(type='Accuracy', topk=(1, 5))
