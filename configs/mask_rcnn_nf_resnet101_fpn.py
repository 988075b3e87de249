# Written by tools/write_configs.py from nfnet_mm/recipes.py.
"""Mask R-CNN + FPN on NF-ResNet-101, COCO, by the recipe of the NFNets; in neither paper (its BatchNorm baseline is).

Expects COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json). Batch 256 =
train_dataloader.batch_size (2) x GPUs x accumulation, the last derived: one GPU accumulates 128 times.
"""
_base_ = './_base_/recipe/mask_rcnn_coco_agc.py'

# SET ME: the ImageNet weights to start from: a classifier of ours. None starts from random weights, for which 22,500
# steps are too few.
weights = None
init = dict(init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)) if weights else {}
model = dict(
    backbone=dict(
        _delete_=True, type='nfnet_mm.NFResNet', depth=101, out_indices=(0, 1, 2, 3), frozen_stages=-1, **init),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
