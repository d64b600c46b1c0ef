# SimVPv2's own recipe.
_base_ = './simvp_moganet_100e_kitticaltech.py'
model = dict(translator='gSTA', drop_path_rate=0.2)
