# Peer of simvp_moganet_100e_kitticaltech.py: only the block of the translator differs.
_base_ = './simvp_moganet_100e_kitticaltech.py'
model = dict(translator='gSTA')
