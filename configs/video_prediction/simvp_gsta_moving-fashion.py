# Baseline for simvp_moganet_moving-fashion.py: only the translator block differs.
_base_ = './simvp_moganet_moving-fashion.py'
model = dict(translator='gSTA')
