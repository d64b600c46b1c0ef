# SimVP with Moga blocks, at the size of the Moving MNIST runs; translator='gSTA' is the published baseline of it.
# It is unclear whether the published Moving MNIST run had drop path 0 or 0.1: the config file has 0, which the command
# line may have overridden. 0 is used here. In both cases, the rates of the earlier stages go from 0.01 towards it.
model = dict(
    type='SimVP',
    num_frames=10,
    in_channels=1,
    spatial_dims=64,
    spatial_depth=4,
    temporal_dims=512,
    temporal_depth=8,
    translator='MogaNet',
    drop_path_rate=0.0,
)
