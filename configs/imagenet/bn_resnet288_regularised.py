# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 32 images x 8 GPUs x 4 accumulated.
# Paper: top-1 79.5 (NF-ResNets, Table 1).
_base_ = 'nf_resnet288.py'
model = dict(backbone=dict(type='nfnet_mm.BNResNet'), head=dict(init_cfg=dict(type='Constant', layer='Linear', val=0)))
