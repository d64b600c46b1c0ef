# Peer of simvp_moganet_200e_mmnist-cifar.py: only the block of the translator differs.
_base_ = './simvp_moganet_200e_mmnist-cifar.py'
model = dict(translator='gSTA')
