# Not a published setting: frames six hours apart, a sequence from every hour, and the training set's normalization.
_base_ = './simvp_moganet_50e_weather-mv.py'
train_dataloader = dict(
    dataset=dict(step=1, input_offsets=(-18, -12, -6, 0), target_offsets=(6, 12, 18, 24), train_years=(1979, 2015))
)
val_dataloader = train_dataloader
test_dataloader = train_dataloader
