_base_ = './simvp_moganet_50e_weather-t2m.py'
train_dataloader = dict(dataset=dict(variables=('relative_humidity',)))
val_dataloader = dict(dataset=dict(variables=('relative_humidity',)))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-2))
