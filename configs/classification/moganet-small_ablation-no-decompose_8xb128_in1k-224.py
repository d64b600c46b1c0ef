# The paper's ablation of S: removes one part at a time.
_base_ = './moganet-small_8xb128_in1k-224.py'
model = dict(backbone=dict(type='AblatedMogaNet', ablation=dict(decompose=False)))
