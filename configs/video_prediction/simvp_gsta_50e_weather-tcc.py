# SimVPv2's own recipe.
_base_ = './simvp_moganet_50e_weather-tcc.py'
model = dict(translator='gSTA')
