# From scratch on the synthetic hands: as for the digit scenes, but eight epochs.
_base_ = '../../../_base_/schedules/adamw_digits.py'
train_cfg = dict(max_epochs=8, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=0, end=8, convert_to_iter_based=True),
]
