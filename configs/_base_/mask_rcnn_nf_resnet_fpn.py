"""Mask R-CNN + FPN on an NF-ResNet. No normalization in the neck and heads either: mmdet's have none."""
_base_ = 'mask_rcnn_fpn.py'
# As NFNets', its features 0-3 are the sums that the stages end in, before any activation. No need of one: FPN's
# lateral 1x1 convs read them first.
# Without stochastic depth, as the papers fine-tune ResNets.
model = dict(backbone=dict(
    _delete_=True, type='nfnet_mm.NFResNet', depth=50, out_indices=(0, 1, 2, 3), frozen_stages=-1))
