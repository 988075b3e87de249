# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 samples, each mixed from two images, x 8 GPUs x 4 accumulated.
# Paper: top-1 83.1 (NFNets, Table 2).
_base_ = 'nfnet_f2.py'
train_dataloader = dict(collate_fn=dict(_delete_=True, type='nfnet_mm.mixing_collate', num_classes=1000, cutmix=False))
