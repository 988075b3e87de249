"""FCN on a dilated NFNet 'nano' with AGC: handwritten digits, minutes on two CPU cores."""
_base_ = '_base_/digits_semantic.py'

max_iters = 500
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        size=(96, 96)),
    # No stage strides, so that features stay at stride 4: strokes are 4-8 px wide. The last two dilate instead.
    backbone=dict(
        type='nfnet_mm.NFNet', arch='nano', strides=(1, 1, 1, 1), dilations=(1, 1, 2, 4), out_indices=(3, )),
    # Most pixels are background: it weighs less, so that the digits are learnt sooner.
    decode_head=dict(
        type='FCNHead', in_channels=128, in_index=0, channels=64, num_convs=1, concat_input=False, norm_cfg=None,
        dropout_ratio=0, num_classes=11, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.6] + [1.0] * 10)),
    test_cfg=dict(mode='whole'))

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=100)
optim_wrapper = dict(optimizer=dict(lr=6e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, T_max=max_iters - 50, eta_min_ratio=0.01)]
