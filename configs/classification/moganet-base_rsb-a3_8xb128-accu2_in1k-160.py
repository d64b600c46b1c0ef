_base_ = './moganet-tiny_rsb-a3_8xb256_in1k-160.py'
model = dict(backbone=dict(arch='base'), head=dict(in_channels=512))
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=2)
auto_scale_lr = dict(base_batch_size=1024)  # per iteration, before accumulation
