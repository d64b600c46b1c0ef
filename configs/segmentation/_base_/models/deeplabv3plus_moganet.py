# DeepLabV3+, arXiv 1802.02611. The dilations 12, 24, 36 of stride 8 are divided by 4, since MogaNet's last map has
# stride 32.
_base_ = './encoder-decoder-auxiliary_moganet.py'
model = dict(
    decode_head=dict(
        type='DepthwiseSeparableASPPHead', in_index=3, channels=512, dilations=(1, 3, 6, 9), c1_channels=48
    )
)
