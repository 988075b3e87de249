# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 8 = 8 images x 1 GPU.
# Paper: top-1 65.7 (NF-ResNets, Table 2, 15 epochs). NF-ResNet-50: 69.6.
_base_ = 'nf_resnet50_15e_batch8.py'
model = dict(backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=50, out_indices=(3, )))
