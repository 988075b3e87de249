"""Mask R-CNN + FPN on NFNet-F0, COCO: box AP 46.7, mask AP 40.9 in the paper (ICML, Table 5).

Expects COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json).
Batch 256 = train_dataloader.batch_size (2) x GPUs x accumulation, the last derived: 8 GPUs accumulate 16 times. A GPU
of 80 GB holds more: --cfg-options train_dataloader.batch_size=8.
"""
_base_ = ['./_base_/mask_rcnn_nfnet_fpn.py', './_base_/coco_instance_lsj.py', './_base_/coco_22k_agc.py']

# SET ME: the F0 weights to start from: the authors' F0_haiku.npz, timm's dm_nfnet_f0, or a classifier of ours. None
# starts from random weights, for which 22,500 steps are too few.
weights = None
init = dict(init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)) if weights else {}
model = dict(backbone=dict(arch='F0', **init), neck=dict(in_channels=[256, 512, 1536, 1536]))
