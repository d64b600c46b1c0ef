# Batch size 16 (8 GPUs x 2).
_base_ = './ade20k.py'
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=16)
