_base_ = './encoder-decoder-auxiliary_moganet.py'
model = dict(decode_head=dict(type='UPerHead', pool_scales=(1, 2, 3, 6), channels=512))
