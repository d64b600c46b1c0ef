# Five epochs of warm-up, then a cosine that counts from epoch 0.
_base_ = './cosine_50e.py'
param_scheduler = [dict(type='WarmupCosineLR', warmup=5, warmup_start=1e-5, eta_min=1e-6, by_epoch=True)]
