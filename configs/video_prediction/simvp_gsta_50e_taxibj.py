# Peer of simvp_moganet_50e_taxibj.py: only the block of the translator differs.
_base_ = './simvp_moganet_50e_taxibj.py'
model = dict(translator='gSTA')
