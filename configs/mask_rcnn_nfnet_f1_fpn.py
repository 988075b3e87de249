"""Mask R-CNN + FPN on NFNet-F1, COCO: box AP 48.1, mask AP 41.7 in the paper (ICML, Table 5).

Expects COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json).
Batch 256 = train_dataloader.batch_size (2) x GPUs x accumulation, the last derived: 8 GPUs accumulate 16 times.
"""
_base_ = ['./_base_/mask_rcnn_nfnet_fpn.py', './_base_/coco_instance_lsj.py', './_base_/coco_22k_agc.py']

# SET ME: the F1 weights to start from: the authors' F1_haiku.npz, timm's dm_nfnet_f1, or a classifier of ours. None
# starts from random weights, for which 22,500 steps are too few.
weights = None
init = dict(init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)) if weights else {}
model = dict(backbone=dict(arch='F1', **init), neck=dict(in_channels=[256, 512, 1536, 1536]))
