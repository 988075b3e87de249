"""Mask R-CNN + FPN on NF-ResNet-50, COCO, by the recipe of the NFNets; in neither paper (its BatchNorm twin is).

Expects COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json).
Batch 256 = train_dataloader.batch_size (2) x GPUs x accumulation, the last derived: 8 GPUs accumulate 16 times.
"""
_base_ = ['./_base_/mask_rcnn_nf_resnet_fpn.py', './_base_/coco_instance_lsj.py', './_base_/coco_22k_agc.py']

# SET ME: the weights to start from: a classifier of ours, or timm's nf_resnet50, whose shape is another: with them set
# depth='nf_resnet50'. From None (random), 22,500 steps are too few.
weights = None
init = dict(init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)) if weights else {}
model = dict(backbone=dict(depth=50, **init))
