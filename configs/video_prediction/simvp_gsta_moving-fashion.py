# Kept for compatibility: equal to simvp_gsta_equal-settings_moving-fashion.py.
_base_ = './simvp_gsta_equal-settings_moving-fashion.py'
