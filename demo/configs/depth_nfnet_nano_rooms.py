"""Up-projection on a dilated NFNet 'nano' with AGC: ray-cast rooms, minutes on two CPU cores."""
_base_ = '_base_/rooms_depth.py'

max_iters = 800
model = dict(
    type='DepthEstimator',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        size=(96, 128), pad_val=0, seg_pad_val=0),
    # At stride 32 a picture would have 4 x 3 places: the last two stages dilate at stride 8 instead.
    backbone=dict(
        type='nfnet_mm.NFNet', arch='nano', strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), out_indices=(3, )),
    # Depths come out at stride 2, and start at 3 m, the middle of a room.
    decode_head=dict(
        type='nfnet_mm.UpProjectionHead', in_channels=128, channels=64, num_blocks=2,
        loss_decode=dict(type='nfnet_mm.BerHuLoss'),
        init_cfg=dict(type='Normal', std=0.1, bias=3.0, override=dict(name='conv_seg'))),
    train_cfg=dict(), test_cfg=dict(mode='whole'))

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=200)
default_hooks = dict(logger=dict(interval=20))
optim_wrapper = dict(
    optimizer=dict(lr=4e-3), paramwise_cfg=dict(agc_exclude=['decode_head.conv_seg.*']))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, T_max=max_iters - 50, eta_min_ratio=0.01)]
