"""The published sizes of MogaNet."""

# Paper table A1; drop_path_rate: the rate of the ImageNet-1K training.
ARCHS = {
    'xtiny': dict(embed_dims=(32, 64, 96, 192), depths=(3, 3, 10, 2), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.05),
    'tiny': dict(embed_dims=(32, 64, 128, 256), depths=(3, 3, 12, 2), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.1),
    'small': dict(embed_dims=(64, 128, 320, 512), depths=(2, 3, 12, 2), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.1),
    'base': dict(embed_dims=(64, 160, 320, 512), depths=(4, 6, 22, 3), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.2),
    'large': dict(embed_dims=(64, 160, 320, 640), depths=(4, 6, 44, 4), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.3),
    'xlarge': dict(embed_dims=(96, 192, 480, 960), depths=(6, 6, 44, 4), ffn_ratios=(8, 8, 4, 4), drop_path_rate=0.4),
}
ALIASES = {
    'xt': 'xtiny',
    'x-tiny': 'xtiny',
    't': 'tiny',
    's': 'small',
    'b': 'base',
    'l': 'large',
    'xl': 'xlarge',
    'x-large': 'xlarge',
}
