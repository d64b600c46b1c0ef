_base_ = './moganet-small_8xb128_in1k-224.py'
model = dict(backbone=dict(type='AblatedMogaNet', ablation=dict(context='5x5')))
