# Written by tools/write_configs.py from nfnet_mm/recipes.py.
"""BN-ResNet-152 + FCN, Pascal VOC 2012 val: mIoU 77.9 (NF-ResNets, Table 6).

Expects data/VOCdevkit/VOC2012 in the usual layout, with SegmentationClassAug. Batch 16 = train_dataloader.batch_size
(4) x GPUs x accumulation, the last derived: one GPU accumulates 4 times.
"""
_base_ = './_base_/recipe/fcn_voc.py'

# SET ME: the ImageNet weights to start from: a classifier of mmpretrain's or ours. None starts from random weights.
weights = None
init = dict(init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')) if weights else {}
norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(type='nfnet_mm.BNResNet', depth=152, out_indices=(3, ), norm_cfg=norm_cfg, norm_eval=False, **init),
    decode_head=dict(norm_cfg=dict(_delete_=True, **norm_cfg)))
