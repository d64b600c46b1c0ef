# Baseline for simvp_moganet_50e_taxibj.py: only the translator block differs.
_base_ = './simvp_moganet_50e_taxibj.py'
model = dict(translator='gSTA')
