# Peer of simvp_moganet_2000e_moving-mnist.py: only the block of the translator differs.
_base_ = './simvp_moganet_2000e_moving-mnist.py'
model = dict(translator='gSTA')
