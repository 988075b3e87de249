# Written by tools/write_configs.py from nfnet_mm/recipes.
"""Mask R-CNN + FPN on NF-ResNet-50, COCO.

By the recipe of the NFNets; in neither paper.

Expects COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json). Batch 256 =
train_dataloader.batch_size (2) x GPUs x accumulation, the last derived: one GPU accumulates 128 times.
"""
_base_ = './_base_/recipe/mask_rcnn_coco_agc.py'

# SET ME, or --cfg-options weights=FILE: the ImageNet weights to start from: a classifier of ours, or timm/nf_resnet50,
# whose shape is another: with them set depth='timm/nf_resnet50'. None starts from random weights, for which 22,500
# steps are too few.
weights = None
model = dict(
    backbone=dict(
        _delete_=True, type='nfnet_mm.NFResNet', depth=50, out_indices=(0, 1, 2, 3),
        init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
