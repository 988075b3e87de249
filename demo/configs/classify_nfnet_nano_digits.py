"""The papers' classifier on NFNet 'nano' with AGC: handwritten digits, minutes on two CPU cores."""
_base_ = '_base_/digits_classes.py'

max_iters = 600
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(type='nfnet_mm.NFNet', arch='nano', out_indices=(4, )),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='nfnet_mm.NFClsHead', num_classes=10, in_channels=256,
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)))

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=100)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, T_max=max_iters - 50, eta_min_ratio=0.01)]
