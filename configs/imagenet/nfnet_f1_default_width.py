# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 256 samples, each mixed from two images, x 8 GPUs x 2 accumulated.
# Paper: top-1 84.5 (NFNets, Table 2).
_base_ = 'nfnet_f1.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 4, 12, 6), widths=(256, 512, 1024, 2048))),
    head=dict(in_channels=4096))
