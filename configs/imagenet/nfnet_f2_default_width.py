# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 samples, each mixed from two images, x 8 GPUs x 4 accumulated.
# Paper: top-1 85.0 (NFNets, Table 2).
_base_ = 'nfnet_f2.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(3, 6, 18, 9), widths=(256, 512, 1024, 2048))),
    head=dict(in_channels=4096))
