"""BN-ResNet-101 + FCN, Pascal VOC 2012 val: mIoU 77.0 in the paper (NF-ResNets, Table 6).

Expects data/VOCdevkit/VOC2012 in the usual layout, with SegmentationClassAug. Batch 16 = train_dataloader.batch_size
(4) x GPUs x accumulation, the last derived: one GPU accumulates 4 times, four GPUs none.
"""
_base_ = './_base_/fcn_voc_bn.py'

# SET ME: the ImageNet weights to start from (a classifier of mmpretrain's or ours). None starts from random weights.
weights = None
init = dict(init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')) if weights else {}
model = dict(backbone=dict(depth=101, **init))
