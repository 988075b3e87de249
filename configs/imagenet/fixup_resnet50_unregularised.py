# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 128 images x 8 GPUs.
# NF-ResNets, Table 1.
_base_ = 'fixup_resnet50.py'
model = dict(backbone=dict(drop_path_rate=0.0), head=dict(dropout=0.0))
