"""Mask R-CNN + FPN of mmdet on its BatchNorm ResNet, trained whole; the neck and heads have no normalization.

Of the normalizer-free networks it takes the sums that the stages end in, before any activation: FPN's lateral 1x1 convs
read them first.
"""
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(
    # The public weights were trained on RGB with ImageNet's mean and deviation.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        # What large-scale jitter makes smaller is padded, so that a step costs the same on every GPU.
        batch_augments=[dict(type='BatchFixedSizePad', size=(1024, 1024), pad_mask=True)]),
    # Statistics over all GPUs, for two pictures on each are too few; batches that are accumulated are normalised
    # separately. (Without distributed training mmengine makes it BatchNorm.)
    backbone=dict(frozen_stages=-1, norm_cfg=dict(type='SyncBN'), norm_eval=False))
