# Peer of simvp_moganet_100e_kth.py: only the block of the translator differs.
_base_ = './simvp_moganet_100e_kth.py'
model = dict(translator='gSTA')
