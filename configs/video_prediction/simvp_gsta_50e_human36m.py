# SimVPv2's own recipe.
_base_ = './simvp_moganet_50e_human36m.py'
model = dict(translator='gSTA', temporal_depth=8)
