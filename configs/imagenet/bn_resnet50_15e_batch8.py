# Written by tools/write_configs.py from nfnet_mm/recipes.
# 8 = 8 images x 1 GPU.
# Paper: top-1 65.7 (NF-ResNets, Table 2).
_base_ = 'nf_resnet50_15e_batch8.py'
model = dict(backbone=dict(type='nfnet_mm.BNResNet'), head=dict(init_cfg=dict(type='Constant', layer='Linear', val=0)))
