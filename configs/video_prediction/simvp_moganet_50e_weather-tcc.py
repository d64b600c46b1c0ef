_base_ = './simvp_moganet_50e_weather-t2m.py'
model = dict(drop_path_rate=0.1)
train_dataloader = dict(dataset=dict(variables=('total_cloud_cover',)))
val_dataloader = dict(dataset=dict(variables=('total_cloud_cover',)))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-2))
