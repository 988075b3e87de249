# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 256 samples, each mixed from two images, x 8 GPUs x 2 accumulated.
# Paper: top-1 84.6 (NFNets, Table 2).
_base_ = 'nfnet_f1.py'
train_dataloader = dict(collate_fn=dict(cutmix=False))
