_base_ = './heatmap3d_moganet-tiny_100e_freihand-224x224.py'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2, init_cfg=dict(checkpoint='mogacore://moganet_small')),
    head=dict(in_channels=512),
)
