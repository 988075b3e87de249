"""Mask R-CNN + FPN on an NFNet. No normalization in the neck and heads either: mmdet's have none."""
_base_ = 'mask_rcnn_fpn.py'
# Stochastic depth as the paper fine-tunes with (0.1); every stage is trained, there are no statistics to freeze.
model = dict(backbone=dict(
    _delete_=True, type='nfnet_mm.NFNet', arch='F0', out_indices=(0, 1, 2, 3), drop_path_rate=0.1, frozen_stages=-1))
