# 4 = 4 images x 1 GPU.
# Paper: top-1 55.7, NF-ResNet-50 69.9 (NF-ResNets, Table 2).
_base_ = 'nf_resnet50_15e_batch4.py'
model = dict(backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=50, out_indices=(3, )))
