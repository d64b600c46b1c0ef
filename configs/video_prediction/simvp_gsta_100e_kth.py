# Baseline for simvp_moganet_100e_kth.py: only the translator block differs.
_base_ = './simvp_moganet_100e_kth.py'
model = dict(translator='gSTA')
