# Written by tools/write_configs.py from nfnet_mm/recipes.py.
"""Mask R-CNN + FPN on BN-ResNet-101, COCO: box AP 42.9, mask AP 37.7 (NFNets, ICML version, Table 5).

Expects COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json). Batch 256 =
train_dataloader.batch_size (2) x GPUs x accumulation, the last derived: one GPU accumulates 128 times.
"""
_base_ = './_base_/recipe/mask_rcnn_coco.py'

# The ImageNet weights to start from: a URL, or a checkpoint of mmdet's ResNet.
weights = 'torchvision://resnet101'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint=weights)))
