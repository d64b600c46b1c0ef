# The paper's ablation on S, a part left out at a time.
_base_ = './moganet-small_8xb128_in1k-224.py'
model = dict(backbone=dict(attn_decompose=False))
