# SimVPv2's own recipe, at the width of the published results; the published config file has 512.
_base_ = './simvp_moganet_50e_weather-mv.py'
model = dict(translator='gSTA')
optim_wrapper = dict(optimizer=dict(lr=1e-3))
