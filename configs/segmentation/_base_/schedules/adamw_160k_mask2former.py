# Mask2Former: a tenth of the learning rate for the backbone, no weight decay for norms, scales and embeddings, small
# gradients, no warm-up. PolyLR reaches zero one step before ``end``.
_base_ = './adamw_160k.py'
train_cfg = dict(val_interval=5000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=160001, by_epoch=False)]
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        no_decay_names=['layer_scale', 'scale', 'query_embed', 'query_feat', 'level_embed'],
        norm_decay_mult=0.0,
        custom_keys={'backbone': dict(lr_mult=0.1)},
    ),
)
