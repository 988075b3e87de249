# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 512 samples, each mixed from two images, x 8 GPUs.
# Paper: top-1 83.1 (NFNets, Table 2).
_base_ = 'nfnet_f0.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(1, 2, 6, 3), widths=(256, 512, 1024, 2048))),
    head=dict(in_channels=4096))
