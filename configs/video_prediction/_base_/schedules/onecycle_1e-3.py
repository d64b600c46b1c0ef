# Adam with a one-cycle schedule, as in the published runs: the learning rate rises for 30 % of all iterations and then
# falls, while beta1 goes from 0.95 to 0.85 and back. The learning rate is the published one for Moving MNIST.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=1e-3,
        pct_start=0.3,
        div_factor=25.0,
        final_div_factor=1e4,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='OneCycleMomentum',
        pct_start=0.3,
        base_momentum=0.85,
        max_momentum=0.95,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
