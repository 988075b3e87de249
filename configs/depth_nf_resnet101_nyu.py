# Written by tools/write_configs.py from nfnet_mm/recipes.
"""NF-ResNet-101 + up-projections, NYU Depth v2: delta1/2/3 82.7/96.4/99.0, rms .564, rel .136 (NF-ResNets, Table 7).

Expects data/nyu as docs/depth.md says. Batch 256 = train_dataloader.batch_size (32) x GPUs x accumulation, the last
derived: one GPU accumulates 8 times.
"""
_base_ = './_base_/recipe/depth_nyu_agc.py'

# SET ME, or --cfg-options weights=FILE: the ImageNet weights to start from: a classifier of ours. None starts from
# random weights.
weights = None
model = dict(
    backbone=dict(
        type='nfnet_mm.NFResNet', depth=101, out_indices=(4, ),
        init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)))
