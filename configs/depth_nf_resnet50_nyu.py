# Written by tools/write_configs.py from nfnet_mm/recipes.
"""NF-ResNet-50 + up-projections, NYU Depth v2: delta1/2/3 81.9/95.9/98.9, rms .572, rel .141 (NF-ResNets, Table 7).

Expects data/nyu as docs/depth.md says. Batch 256 = train_dataloader.batch_size (32) x GPUs x accumulation, the last
derived: one GPU accumulates 8 times.
"""
_base_ = './_base_/recipe/depth_nyu_agc.py'

# SET ME, or --cfg-options weights=FILE: the ImageNet weights to start from: a classifier of ours, or timm/nf_resnet50,
# whose shape is another: with them set depth='timm/nf_resnet50'. None starts from random weights.
weights = None
model = dict(
    backbone=dict(
        type='nfnet_mm.NFResNet', depth=50, out_indices=(4, ),
        init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)))
