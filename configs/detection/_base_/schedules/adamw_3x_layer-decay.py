# The learning rate decreases by a factor 0.8 per layer towards the input; no weight decay for biases and vectors.
_base_ = './adamw_3x_warmup-1000.py'
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.8, no_decay_vectors=True))
