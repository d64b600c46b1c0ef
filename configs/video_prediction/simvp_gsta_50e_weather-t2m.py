# Baseline for simvp_moganet_50e_weather-t2m.py: only the translator block differs.
_base_ = './simvp_moganet_50e_weather-t2m.py'
model = dict(translator='gSTA')
