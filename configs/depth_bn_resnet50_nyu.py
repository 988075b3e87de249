# Written by tools/write_configs.py from nfnet_mm/recipes.py.
"""BN-ResNet-50 + up-projections, NYU Depth v2: delta1/2/3 81.7/95.7/98.8, rms .579, rel .141 (NF-ResNets, Table 7).

Expects data/nyu as tools/prepare_nyu.py makes it. Batch 256 = train_dataloader.batch_size (32) x GPUs x accumulation,
the last derived: one GPU accumulates 8 times.
"""
_base_ = './_base_/recipe/depth_nyu.py'

# SET ME: the ImageNet weights to start from: a classifier of mmpretrain's or ours. None starts from random weights.
weights = None
init = dict(init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')) if weights else {}
norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(type='nfnet_mm.BNResNet', depth=50, out_indices=(3, ), norm_cfg=norm_cfg, norm_eval=False, **init),
    decode_head=dict(norm_cfg=norm_cfg))
