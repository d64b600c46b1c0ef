# WeatherBench (arXiv 2002.00469): humidity, temperature and wind at 150, 500 and 850 hPa on a grid of 5.625 degrees,
# every six hours, four input and four predicted frames. Errors are in physical units, unweighted means over grid and
# levels of each variable; metrics without prefix are means of the four variables.
data_help = 'copy the variable folders of WeatherBench to it, see docs/video_prediction.md'
input_shape = (4, 12, 32, 64)
weather = dict(
    type='WeatherBench',
    data_root='data/weather/5.625deg',
    variables=('relative_humidity', 'temperature', 'u_component_of_wind', 'v_component_of_wind'),
    levels=(150, 500, 850),
    train_years=(1979, 2015),
    step=6,
    num_inputs=4,
    num_targets=4,
)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**weather, years=(1979, 2015)),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**weather, years=(2017, 2018)),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='VideoPredictionMetric',
    metric=('mse', 'mae', 'rmse'),
    spatial_norm=True,
    groups=dict(r=3, t=3, u=3, v=3),
)
test_evaluator = val_evaluator
