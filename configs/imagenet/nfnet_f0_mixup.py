# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 512 samples, each mixed from two images, x 8 GPUs.
# Paper: top-1 82.2 (NFNets, Table 2).
_base_ = 'nfnet_f0.py'
train_dataloader = dict(collate_fn=dict(_delete_=True, type='nfnet_mm.mixing_collate', num_classes=1000, cutmix=False))
