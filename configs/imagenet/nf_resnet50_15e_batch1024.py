# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 128 images x 8 GPUs.
# Paper: top-1 69.9 (NF-ResNets, Table 2).
_base_ = 'nf_resnet50.py'
model = dict(backbone=dict(drop_path_rate=0.0), head=dict(dropout=0.0))
train_cfg = dict(max_epochs=15, val_interval=1)
