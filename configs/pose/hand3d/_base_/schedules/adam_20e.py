train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=1)
val_cfg = dict()
test_cfg = dict()
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=20, milestones=[15, 17], gamma=0.1)]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=2e-4))
