# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 128 images x 8 GPUs.
# Results are those of the fine-tuning. A reading: The paper does not say whether pre-training has dropout and
# stochastic depth: here it has neither.
_base_ = 'pretrain_nf_resnet50.py'
model = dict(backbone=dict(depth=101))
