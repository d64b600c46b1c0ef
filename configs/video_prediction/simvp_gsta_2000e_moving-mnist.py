# SimVPv2's own recipe.
_base_ = './simvp_moganet_2000e_moving-mnist.py'
model = dict(translator='gSTA')
