# Settings of the MogaNet release where they differ from OpenMixup's.
_base_ = './moganet_in1k.py'
model = dict(backbone=dict(attn_force_fp32=False), head=dict(init_cfg=dict(type='TruncNormal', std=0.02)))
