# At 1.40625 degrees; the published batch size was 16 (4 x 4 sequences).
_base_ = './simvp_moganet_50e_weather-t2m.py'
input_shape = (12, 1, 128, 256)
model = dict(drop_path_rate=0.1)
train_dataloader = dict(batch_size=4, dataset=dict(data_root='data/weather/1.40625deg'))
val_dataloader = dict(batch_size=4, dataset=dict(data_root='data/weather/1.40625deg'))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-2))
