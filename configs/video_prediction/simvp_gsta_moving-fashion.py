# The short name of the same run.
_base_ = './simvp_gsta_equal-settings_moving-fashion.py'
