# SimVPv2's own recipe.
_base_ = './simvp_moganet_50e_weather-uv10.py'
model = dict(translator='gSTA')
optim_wrapper = dict(optimizer=dict(lr=5e-3))
