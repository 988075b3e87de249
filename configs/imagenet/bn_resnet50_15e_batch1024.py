# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 128 images x 8 GPUs.
# Paper: top-1 70.9 (NF-ResNets, Table 2).
_base_ = 'nf_resnet50_15e_batch1024.py'
model = dict(backbone=dict(type='nfnet_mm.BNResNet'), head=dict(init_cfg=dict(type='Constant', layer='Linear', val=0)))
