_base_ = './simvp_moganet_50e_weather-t2m.py'
model = dict(in_channels=2)
input_shape = (12, 2, 32, 64)
wind = ('10m_u_component_of_wind', '10m_v_component_of_wind')
train_dataloader = dict(dataset=dict(variables=wind))
val_dataloader = dict(dataset=dict(variables=wind))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3))
