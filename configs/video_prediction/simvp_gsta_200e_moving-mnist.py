# Baseline for simvp_moganet_200e_moving-mnist.py: only the translator block differs.
_base_ = './simvp_moganet_200e_moving-mnist.py'
model = dict(translator='gSTA')
