"""Mask R-CNN + FPN of mmdet on an NFNet. No normalization in the neck and heads either: mmdet's have none."""
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(
    # The public NFNet weights were trained on RGB with ImageNet's mean and deviation.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        # What large-scale jitter makes smaller is padded, so that a step costs the same on every GPU.
        batch_augments=[dict(type='BatchFixedSizePad', size=(1024, 1024), pad_mask=True)]),
    # Stochastic depth as the paper fine-tunes with (0.1); every stage is trained, there are no statistics to freeze.
    backbone=dict(_delete_=True, type='nfnet_mm.NFNet', arch='F0', out_indices=(0, 1, 2, 3), drop_path_rate=0.1,
                  frozen_stages=-1))
