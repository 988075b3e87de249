# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 1024 = 128 images x 8 GPUs.
# Top-1 77.1 without dropout and stochastic depth (NF-ResNets, Table 1).
_base_ = 'nf_resnet50.py'
model = dict(backbone=dict(depth=101))
