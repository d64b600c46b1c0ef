# ImageNet-A (arXiv 1907.07174): 200 of the 1,000 classes; the accuracy is that among these. The names of the class
# folders of ImageNet's validation images give the labels.
_base_ = './imagenet-variants.py'
data_help = 'see docs/data.md#robustness-of-classifiers'
test_dataloader = dict(
    dataset=dict(type='ImageNetSubset', data_root='data/imagenet-a', reference_root='data/imagenet/val')
)
test_evaluator = dict(type='SubsetAccuracy')
