# Peer of simvp_moganet_50e_human36m.py: only the block of the translator differs.
_base_ = './simvp_moganet_50e_human36m.py'
model = dict(translator='gSTA')
