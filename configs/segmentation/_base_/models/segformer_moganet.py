# SegFormer's head: one linear layer per stage, then a 1x1 convolution. arXiv 2105.15203.
_base_ = './encoder-decoder_moganet.py'
model = dict(decode_head=dict(type='SegformerHead', channels=256))
