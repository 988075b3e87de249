# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 images x 8 GPUs x 4 accumulated.
# Results are those of the fine-tuning. A reading: The paper does not say whether pre-training has dropout and
# stochastic depth: here it has neither. The 5,000 steps of warm-up are given for ResNets, and taken over for NFNets.
_base_ = 'pretrain_nfnet_f4.py'
model = dict(backbone=dict(arch='F4+'), head=dict(in_channels=4096))
train_cfg = dict(max_epochs=20)
