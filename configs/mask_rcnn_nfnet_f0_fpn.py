# Written by tools/write_configs.py from nfnet_mm/recipes.
"""Mask R-CNN + FPN on NFNet-F0, COCO: box AP 46.7, mask AP 40.9 (NFNets, ICML version, Table 5).

A reading: Stochastic depth, which the paper does not mention for COCO, is as in its fine-tuning on ImageNet.

Expects COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json). Batch 256 =
train_dataloader.batch_size (2) x GPUs x accumulation, the last derived: one GPU accumulates 128 times.
"""
_base_ = './_base_/recipe/mask_rcnn_coco_agc.py'

# SET ME, or --cfg-options weights=FILE: the ImageNet weights to start from: deepmind/F0, timm/dm_nfnet_f0, or a
# classifier of ours. None starts from random weights, for which 22,500 steps are too few.
weights = None
model = dict(
    backbone=dict(
        _delete_=True, type='nfnet_mm.NFNet', arch='F0', out_indices=(0, 1, 2, 3), drop_path_rate=0.1,
        init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)),
    neck=dict(in_channels=[256, 512, 1536, 1536]))
