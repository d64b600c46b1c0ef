# The paper's ablation on T, a part added at a time. First: projections and a 5x5 depth-wise convolution, a plain MLP.
_base_ = './moganet-tiny_8xb128_in1k-224.py'
model = dict(backbone=dict(attn_gate=False, attn_context='5x5', attn_decompose=False, ffn_mixer='plain'))
