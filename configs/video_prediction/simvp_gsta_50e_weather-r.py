# SimVPv2's own recipe.
_base_ = './simvp_moganet_50e_weather-r.py'
model = dict(translator='gSTA', drop_path_rate=0.1)
optim_wrapper = dict(optimizer=dict(lr=5e-3))
