# What the small configs of every library share: MogaNet by name, one epoch of plain SGD.
custom_imports = dict(imports=['mogacore.registry'], allow_failed_imports=False)
arch = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), ffn_ratios=(2, 2, 2, 2))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=1)
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
