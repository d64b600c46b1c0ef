_base_ = './moganet-small_8xb128_in1k-224.py'
model = dict(backbone=dict(arch='large'), head=dict(in_channels=640))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=2)
custom_hooks = _base_.custom_hooks
custom_hooks[1].update(interval=2, warmup_iters=20 * 2503)
auto_scale_lr = dict(base_batch_size=512)  # per iteration, before accumulation
