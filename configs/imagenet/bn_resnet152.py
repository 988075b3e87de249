# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 1024 = 128 images x 8 GPUs.
# NF-ResNets, Table 1. The BatchNorm baseline needs no dropout or stochastic depth.
_base_ = 'nf_resnet152.py'
model = dict(
    backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=152, out_indices=(3, )), head=dict(dropout=0.0))
