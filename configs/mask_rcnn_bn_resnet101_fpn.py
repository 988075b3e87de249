"""Mask R-CNN + FPN on a BatchNorm ResNet-101, COCO: box AP 42.9, mask AP 37.7 in the NFNet paper (ICML, Table 5).

Expects COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json).
Batch 256 = train_dataloader.batch_size (2) x GPUs x accumulation, the last derived: 8 GPUs accumulate 16 times.
"""
_base_ = ['./_base_/mask_rcnn_fpn.py', './_base_/coco_instance_lsj.py', './_base_/coco_22k.py']

# The ImageNet weights to start from: a URL, or a checkpoint of mmdet's ResNet.
weights = 'torchvision://resnet101'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint=weights)))
