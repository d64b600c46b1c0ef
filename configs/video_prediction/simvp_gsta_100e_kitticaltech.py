# Baseline for simvp_moganet_100e_kitticaltech.py: only the translator block differs.
_base_ = './simvp_moganet_100e_kitticaltech.py'
model = dict(translator='gSTA')
