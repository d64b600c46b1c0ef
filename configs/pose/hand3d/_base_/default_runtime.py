_base_ = '../../_base_/default_runtime.py'
default_hooks = dict(checkpoint=dict(interval=1, save_best='MPJPE_all', rule='less'), logger=dict(interval=20))
