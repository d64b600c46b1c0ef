_base_ = './moganet-tiny_8xb128_in1k-224.py'
model = dict(backbone=dict(attn_decompose=False, ffn_mixer='plain'))
