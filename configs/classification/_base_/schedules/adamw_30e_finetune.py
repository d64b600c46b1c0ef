# No fine-tuning recipe of MogaNet was published: these are ConvNeXt's values (arXiv 2201.03545, table 5) without
# layer-wise decay. Total batch size 512, cosine without warm-up, 30 epochs.
_base_ = './adamw_300e_ema.py'
optim_wrapper = dict(optimizer=dict(lr=5e-5, weight_decay=1e-8))
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=0, end=30, T_max=30, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=30)
custom_hooks = _base_.custom_hooks
custom_hooks[1]['warmup_iters'] = 0
auto_scale_lr = dict(base_batch_size=512)
