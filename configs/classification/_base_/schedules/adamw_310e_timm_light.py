# For XT and T: mixed precision (bfloat16 instead of the published fp16) and a lower minimum learning rate.
_base_ = './adamw_310e_timm.py'
optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(weight_decay=0.04))
param_scheduler = _base_.param_scheduler
param_scheduler[0]['eta_min'] = 1e-6
