# Schedule of ExPose's hand config (mmhuman3d): 100 epochs, a tenth of the learning rate after 60.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=5)
val_cfg = dict()
test_cfg = dict()
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=100, milestones=[60], gamma=0.1)]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, weight_decay=1e-4))
