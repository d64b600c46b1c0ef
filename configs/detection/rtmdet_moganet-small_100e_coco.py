# The widths of RTMDet-m.
_base_ = './rtmdet_moganet-tiny_100e_coco.py'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='mogacore://moganet_small')),
    neck=dict(in_channels=[128, 320, 512], out_channels=192, num_csp_blocks=2),
    bbox_head=dict(in_channels=192, feat_channels=192, exp_on_reg=True),
)
