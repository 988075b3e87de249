# 1024 = 64 images x 8 GPUs x 2 accumulated.
# Paper (NF-ResNets, Table 1): top-1 without dropout and stochastic depth 77.9.
_base_ = '../_base_/nf_resnet_imagenet.py'
model = dict(backbone=dict(depth=200))
train_dataloader = dict(batch_size=64)
