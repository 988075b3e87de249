# Written by tools/write_configs.py from nfnet_mm/recipes.
"""NF-ResNet-50 + FCN, Pascal VOC 2012 val: mIoU 74.4 (NF-ResNets, Table 6).

Expects data/VOCdevkit/VOC2012 in the usual layout, with SegmentationClassAug. Batch 16 = train_dataloader.batch_size
(4) x GPUs x accumulation, the last derived: one GPU accumulates 4 times.
"""
_base_ = './_base_/recipe/fcn_voc.py'

# SET ME, or --cfg-options weights=FILE: the ImageNet weights to start from: a classifier of ours, or timm/nf_resnet50,
# whose shape is another: with them set depth='timm/nf_resnet50'. None starts from random weights.
weights = None
model = dict(
    backbone=dict(
        type='nfnet_mm.NFResNet', depth=50, out_indices=(4, ),
        init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)))
