# The paper's ablation of T: adds one part at a time to projections, a 5x5 depth-wise convolution and a plain MLP.
_base_ = './moganet-tiny_8xb128_in1k-224.py'
model = dict(
    backbone=dict(type='AblatedMogaNet', ablation=dict(gate=False, context='5x5', decompose=False, ffn_mixer='plain'))
)
