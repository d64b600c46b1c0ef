# WeatherBench (arXiv 2002.00469): humidity, temperature and wind at 150, 500 and 850 hPa on a grid of 5.625 degrees,
# four input and four predicted frames. Errors are in physical units, unweighted means over grid and levels of each
# variable; metrics without prefix are means of the four variables.
#
# As published, the series is thinned to every sixth hour, and the offsets count thinned fields: the inputs are at -102,
# -66, -30 and 0 hours, the targets at 6, 42, 78 and 114 hours, and each split is normalized by its own mean and
# standard deviation. simvp_moganet_50e_weather-mv-6h.py has frames six hours apart.
data_help = 'copy the variable folders of WeatherBench to it, see docs/video_prediction.md'
input_shape = (4, 12, 32, 64)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='WeatherBench',
        data_root='data/weather/5.625deg',
        variables=('relative_humidity', 'temperature', 'u_component_of_wind', 'v_component_of_wind'),
        levels=(150, 500, 850),
        years=(1979, 2015),
        train_years=None,
        step=6,
        input_offsets=(-17, -11, -5, 0),
        target_offsets=(1, 7, 13, 19),
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(train_dataloader['dataset'], years=(2017, 2018)),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='VideoPredictionMetric',
    metric=('mse', 'mae', 'rmse'),
    spatial_norm=True,
    groups=dict(r=3, t=3, u=3, v=3),
)
test_evaluator = val_evaluator
