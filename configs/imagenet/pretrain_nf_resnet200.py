# 1024 = 64 images x 8 GPUs x 2 accumulated.
# Paper: see the fine-tuning.
_base_ = '../_base_/nf_resnet_pretrain.py'
model = dict(backbone=dict(depth=200))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3))
