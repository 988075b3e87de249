# 1024 = 128 images x 8 GPUs.
# Paper: see the fine-tuning.
_base_ = '../_base_/nf_resnet_pretrain.py'
model = dict(backbone=dict(depth=50))
optim_wrapper = dict(type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3))
