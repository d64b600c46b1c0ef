_base_ = './simvp_moganet_200e_moving-mnist.py'
train_cfg = dict(max_epochs=2000, val_interval=10)
