# The rate falls by 0.8 a layer towards the input; neither biases nor vectors of any kind decay.
_base_ = './adamw_3x_warmup-1000.py'
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.8, no_decay_vectors=True))
