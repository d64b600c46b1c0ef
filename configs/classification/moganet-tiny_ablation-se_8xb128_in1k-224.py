_base_ = './moganet-tiny_8xb128_in1k-224.py'
model = dict(backbone=dict(type='AblatedMogaNet', ablation=dict(ffn_mixer='se')))
