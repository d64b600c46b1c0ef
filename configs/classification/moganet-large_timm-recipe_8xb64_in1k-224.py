# The batch size of the released weights' file name; TRAINING.md writes 8 x 128.
_base_ = './moganet-small_timm-recipe_8xb128_in1k-224.py'
model = dict(backbone=dict(arch='large'), head=dict(in_channels=640))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=512)
