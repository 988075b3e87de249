# The BatchNorm twin, which needs no dropout or stochastic depth. 1024 = 64 images x 8 GPUs x 2 accumulated.
# Paper: NF-ResNets, Table 1.
_base_ = 'nf_resnet200.py'
model = dict(
    backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=200, out_indices=(3, )), head=dict(dropout=0.0))
