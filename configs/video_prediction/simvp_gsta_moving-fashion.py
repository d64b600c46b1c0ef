# Peer of simvp_moganet_moving-fashion.py: only the block of the translator differs.
_base_ = './simvp_moganet_moving-fashion.py'
model = dict(translator='gSTA')
