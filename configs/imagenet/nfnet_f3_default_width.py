# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 64 samples, each mixed from two images, x 8 GPUs x 8 accumulated.
# Paper: top-1 85.5 (NFNets, Table 2).
_base_ = 'nfnet_f3.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(4, 8, 24, 12), widths=(256, 512, 1024, 2048))),
    head=dict(in_channels=4096))
