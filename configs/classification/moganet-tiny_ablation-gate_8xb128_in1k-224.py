_base_ = './moganet-tiny_8xb128_in1k-224.py'
model = dict(backbone=dict(attn_context='5x5', attn_decompose=False, ffn_mixer='plain'))
