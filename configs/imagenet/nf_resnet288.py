# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 32 images x 8 GPUs x 4 accumulated.
# Paper: top-1 79.5 (NF-ResNets, Table 1).
_base_ = 'nf_resnet50.py'
model = dict(backbone=dict(depth=288))
train_dataloader = dict(batch_size=32)
