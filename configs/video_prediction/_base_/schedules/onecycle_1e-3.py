# Adam with a rate that rises for 30 % of all iterations and falls for the rest, and a first beta that does the reverse:
# 0.95, 0.85, 0.95. As in the published runs; the rate is the published one of Moving MNIST.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=1e-3, by_epoch=True, convert_to_iter_based=True),
    dict(type='OneCycleMomentum', by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
