# Baseline for simvp_moganet_200e_mmnist-cifar.py: only the translator block differs.
_base_ = './simvp_moganet_200e_mmnist-cifar.py'
model = dict(translator='gSTA')
