# Baseline for simvp_moganet_2000e_moving-mnist.py: only the translator block differs.
_base_ = './simvp_moganet_2000e_moving-mnist.py'
model = dict(translator='gSTA')
