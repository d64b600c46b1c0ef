# RSB A3 (arXiv 2110.00476): LAMB, total batch size 2048, 100 epochs.
_base_ = './adamw_300e.py'
optim_wrapper = dict(optimizer=dict(_delete_=True, type='Lamb', lr=6e-3, weight_decay=0.02))
param_scheduler = _base_.param_scheduler
param_scheduler[0]['start_factor'] = 1e-5
param_scheduler[1].update(eta_min=1e-6, end=100, T_max=100)
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=2048)
