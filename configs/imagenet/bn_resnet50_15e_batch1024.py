# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 1024 = 128 images x 8 GPUs.
# Paper: top-1 70.9 (NF-ResNets, Table 2, 15 epochs). NF-ResNet-50: 69.9.
_base_ = 'nf_resnet50_15e_batch1024.py'
model = dict(backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=50, out_indices=(3, )))
