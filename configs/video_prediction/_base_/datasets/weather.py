# WeatherBench (arXiv 2002.00469): temperature at 2 m on a grid of 5.625 degrees, twelve input and twelve predicted
# hours. Errors are in physical units, unweighted means over the grid.
data_help = 'copy the variable folders of WeatherBench to it, see docs/video_prediction.md'
input_shape = (12, 1, 32, 64)
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
        variables=('2m_temperature',),
        years=(2010, 2015),
        train_years=(2010, 2015),
        num_inputs=12,
        num_targets=12,
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
val_evaluator = dict(type='VideoPredictionMetric', metric=('mse', 'mae', 'rmse'), spatial_norm=True)
test_evaluator = val_evaluator
