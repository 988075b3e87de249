# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 128 images x 8 GPUs.
# NF-ResNets, Table 1.
_base_ = 'nf_resnet152.py'
model = dict(
    backbone=dict(type='nfnet_mm.FixupResNet'), head=dict(init_cfg=dict(type='Constant', layer='Linear', val=0)))
optim_wrapper = dict(optimizer=dict(lr=0.2))
