# 1024 = 32 images x 8 GPUs x 4 accumulated.
# Paper (NF-ResNets, Table 1): top-1 79.5; without dropout and stochastic depth 78.1.
_base_ = '../_base_/nf_resnet_imagenet.py'
model = dict(backbone=dict(depth=288))
train_dataloader = dict(batch_size=32)
