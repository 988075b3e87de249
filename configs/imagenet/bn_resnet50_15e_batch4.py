# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 4 = 4 images x 1 GPU.
# Paper: top-1 55.7 (NF-ResNets, Table 2, 15 epochs). NF-ResNet-50: 69.9.
_base_ = 'nf_resnet50_15e_batch4.py'
model = dict(backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=50, out_indices=(3, )))
