# Peer of simvp_moganet_200e_moving-fmnist.py: only the block of the translator differs.
_base_ = './simvp_moganet_200e_moving-fmnist.py'
model = dict(translator='gSTA')
