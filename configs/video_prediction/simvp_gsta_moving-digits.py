# Baseline for simvp_moganet_moving-digits.py: only the translator block differs.
_base_ = './simvp_moganet_moving-digits.py'
model = dict(translator='gSTA')
