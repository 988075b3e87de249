"""Depth on NYU Depth v2 (NF-ResNets, Appendix H.2; protocol of Laina et al. 2016): data, head, recipe and runtime.

What the paper leaves open: no weight decay and no warm-up, as it names none; the final feature is taken after its
activation, and the head has no normalization either. Not of the paper is AGC: without it, training a normalizer-free
head from random weights at this learning rate diverged on generated scenes.
"""
_base_ = 'mmseg_runtime.py'
size = (304, 228)  # width, height: half of 640 x 480, then the centre
model = dict(
    type='DepthEstimator',
    # of the RGB channels; mmcv loads BGR. Padding, which this size never needs, would be depth 0: not valid.
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        size=size[::-1], pad_val=0, seg_pad_val=0),
    # NF-ResNets end in a sum: index 4 is that sum after its activation, where a ResNet's last stage ends.
    backbone=dict(type='nfnet_mm.NFResNet', depth=50, out_indices=(4, )),
    decode_head=dict(type='nfnet_mm.UpProjectionHead', in_channels=2048, loss_decode=dict(type='nfnet_mm.BerHuLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))

load = [dict(type='LoadImageFromFile'), dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3)]  # millimetres
train_pipeline = [
    *load, dict(type='nfnet_mm.DownsampleCrop', scale=(320, 240), size=size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='nfnet_mm.DepthColorJitter', gray_prob=0.3, brightness=0.1255, saturation=(0.5, 1.5), hue=0.2),
    dict(type='PackSegInputs')]
# Predictions are resized to the original depths of what the crop shows, 608 x 456.
test_pipeline = [
    *load, dict(type='nfnet_mm.DownsampleCrop', scale=(320, 240), size=size, full_depth=True),
    dict(type='PackSegInputs')]
dataset = dict(type='NYUDataset', data_root='data/nyu')
train_dataloader = dict(
    batch_size=32, num_workers=8, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(data_prefix=dict(img_path='images/train', depth_map_path='annotations/train'),
                 pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    batch_size=8, num_workers=4, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix=dict(img_path='images/test', depth_map_path='annotations/test'),
                 pipeline=test_pipeline, test_mode=True, **dataset))
val_evaluator = dict(type='nfnet_mm.PixelDepthMetric')
val_cfg = dict(type='ValLoop')
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict(type='TestLoop')

# Batch 256 = train_dataloader.batch_size (32) x devices x accumulation, the last derived: 8 devices accumulate none.
total_batch, max_iters = 256, 7500
train_cfg = dict(
    type='nfnet_mm.TotalBatchTrainLoop', total_batch=total_batch, lr_batch=total_batch, max_iters=max_iters,
    val_interval=750)
optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper', optimizer=dict(type='SGD', lr=0.16, momentum=0.9, nesterov=True),
    # larger than the 0.01 of batches of 1024 and more (NFNets, Figure 2b); the last layer is not clipped (section 4.1)
    agc=dict(clipping=0.04, eps=1e-3), constructor='nfnet_mm.NFOptimWrapperConstructor',
    paramwise_cfg=dict(agc_exclude=['decode_head.conv_seg.weight']))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=max_iters, T_max=max_iters)]

default_hooks = dict(checkpoint=dict(
    type='CheckpointHook', by_epoch=False, interval=750, max_keep_ckpts=3, save_best='delta1', rule='greater'))
