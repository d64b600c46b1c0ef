# A fair comparison of the translator blocks: everything but the block is as in simvp_moganet_moving-digits.py.
_base_ = './simvp_moganet_moving-digits.py'
model = dict(translator='gSTA')
