"""Mask R-CNN + FPN of mmdet, trained whole; the neck and heads have no normalization, and a config adds the backbone.

FPN's lateral 1x1 convs read the sums that the stages of a pre-activation network end in, before any activation.
"""
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(
    # The public weights were trained on RGB with ImageNet's mean and deviation.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        # What large-scale jitter makes smaller is padded, so that a step costs the same on every GPU.
        batch_augments=[dict(type='BatchFixedSizePad', size=(1024, 1024), pad_mask=True)]))
