_base_ = './moganet-tiny_8xb128_in1k-224.py'
model = dict(backbone=dict(type='AblatedMogaNet', ablation=dict(context='7x7', decompose=False, ffn_mixer='plain')))
