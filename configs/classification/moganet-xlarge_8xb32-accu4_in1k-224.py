_base_ = './moganet-small_8xb128_in1k-224.py'
model = dict(backbone=dict(arch='xlarge'), head=dict(in_channels=960))
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(accumulative_counts=4)
param_scheduler = _base_.param_scheduler
param_scheduler[1]['eta_min'] = 1e-4
custom_hooks = _base_.custom_hooks
custom_hooks[1].update(interval=4, warmup_iters=20 * 5005)
auto_scale_lr = dict(base_batch_size=256)  # per iteration, before accumulation
