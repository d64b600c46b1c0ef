# Peer of simvp_moganet_moving-digits.py: only the block of the translator differs.
_base_ = './simvp_moganet_moving-digits.py'
model = dict(translator='gSTA')
