# Baseline for simvp_moganet_200e_moving-fmnist.py: only the translator block differs.
_base_ = './simvp_moganet_200e_moving-fmnist.py'
model = dict(translator='gSTA')
