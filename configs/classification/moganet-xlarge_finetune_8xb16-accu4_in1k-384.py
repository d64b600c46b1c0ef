# Set load_from to the weight file of XL in the MogaNet release. No mixup or cutmix.
_base_ = [
    './_base_/models/moganet_in1k_timm.py',
    './_base_/datasets/imagenet-384.py',
    './_base_/schedules/adamw_30e_finetune.py',
    './_base_/default_runtime.py',
]
model = dict(backbone=dict(arch='xlarge', with_cp=True), head=dict(in_channels=960), train_cfg=dict(augments=None))
optim_wrapper = dict(accumulative_counts=4)
custom_hooks = _base_.custom_hooks
custom_hooks[1]['interval'] = 4
auto_scale_lr = dict(base_batch_size=128)  # per iteration, before accumulation
