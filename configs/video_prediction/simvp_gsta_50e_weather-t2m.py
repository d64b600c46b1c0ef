# SimVPv2's own recipe.
_base_ = './simvp_moganet_50e_weather-t2m.py'
model = dict(translator='gSTA', drop_path_rate=0.1)
