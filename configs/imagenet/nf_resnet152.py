# 1024 = 128 images x 8 GPUs.
# Paper (NF-ResNets, Table 1): top-1 without dropout and stochastic depth 77.6.
_base_ = '../_base_/nf_resnet_imagenet.py'
model = dict(backbone=dict(depth=152))
