# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 64 images x 8 GPUs x 2 accumulated.
# NF-ResNets, Table 1.
_base_ = 'nf_resnet50.py'
model = dict(backbone=dict(depth=200))
train_dataloader = dict(batch_size=64)
