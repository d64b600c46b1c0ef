_base_ = './onecycle_1e-3.py'
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=5e-3, by_epoch=True, convert_to_iter_based=True),
    dict(type='OneCycleMomentum', by_epoch=True, convert_to_iter_based=True),
]
