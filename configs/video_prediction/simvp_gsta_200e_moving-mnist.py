# SimVPv2's own recipe.
_base_ = './simvp_moganet_200e_moving-mnist.py'
model = dict(translator='gSTA')
