# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 32 images x 8 GPUs x 4 accumulated.
# Paper: top-1 76.2 (NF-ResNets, Table 1).
_base_ = 'fixup_resnet288.py'
model = dict(backbone=dict(drop_path_rate=0.0), head=dict(dropout=0.0))
