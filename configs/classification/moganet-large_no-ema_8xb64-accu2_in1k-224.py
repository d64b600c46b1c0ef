_base_ = './moganet-small_no-ema_8xb128_in1k-224.py'
model = dict(backbone=dict(arch='large', attn_force_fp32=False), head=dict(in_channels=640))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=2)
auto_scale_lr = dict(base_batch_size=512)  # per iteration, before accumulation
