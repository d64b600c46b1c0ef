_base_ = './onecycle_1e-3.py'
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[0]['eta_max'] = 5e-3
