# Baseline for simvp_moganet_50e_human36m.py: only the translator block differs.
_base_ = './simvp_moganet_50e_human36m.py'
model = dict(translator='gSTA')
