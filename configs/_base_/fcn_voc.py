"""FCN on Pascal VOC 2012 (NF-ResNets, Appendix H.1): train + aug -> val, 30,000 steps at batch 16.

What the paper leaves open is taken from the work that it follows (He et al. 2020, MoCo, section 4.2): 256 channels in
the head's convs. No normalization in the head either, no dropout, no stochastic depth.
"""
_base_ = 'mmseg_runtime.py'
crop = (513, 513)
model = dict(
    type='EncoderDecoder',
    # of the RGB channels; mmcv loads BGR
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        size=crop, pad_val=0, seg_pad_val=255, test_cfg=dict(size_divisor=1)),
    # NF-ResNets end in a sum: index 4 is that sum after its activation, where a ResNet's last stage ends.
    backbone=dict(type='nfnet_mm.NFResNet', depth=50, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=(4, )),
    decode_head=dict(
        type='FCNHead', in_channels=2048, in_index=0, channels=256, num_convs=2, dilation=6, concat_input=False,
        norm_cfg=None, dropout_ratio=0, num_classes=21, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    train_cfg=dict(), test_cfg=dict(mode='whole'))

load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
train_pipeline = [
    *load, dict(type='nfnet_mm.RandomScale', scales=(0.5, 2.0)), dict(type='RandomCrop', crop_size=crop),
    dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
test_pipeline = [*load, dict(type='nfnet_mm.CenterCropPad', size=crop), dict(type='PackSegInputs')]
dataset = dict(type='PascalVOCDataset', data_root='data/VOCdevkit/VOC2012')
lists = 'ImageSets/Segmentation/'
train_dataloader = dict(
    batch_size=4, num_workers=4, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='ConcatDataset', datasets=[
        dict(data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'), ann_file=lists + 'train.txt',
             pipeline=train_pipeline, **dataset),
        dict(data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'), ann_file=lists + 'aug.txt',
             pipeline=train_pipeline, **dataset)]))
val_dataloader = dict(
    batch_size=1, num_workers=4, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'), ann_file=lists + 'val.txt',
                 pipeline=test_pipeline, test_mode=True, **dataset))
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
val_cfg = dict(type='ValLoop')
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict(type='TestLoop')

# Batch 16 = train_dataloader.batch_size (4) x devices x accumulation, the last derived: 4 devices accumulate none.
total_batch, max_iters = 16, 30_000
train_cfg = dict(
    type='nfnet_mm.TotalBatchTrainLoop', total_batch=total_batch, lr_batch=total_batch, max_iters=max_iters,
    val_interval=3000)
# The paper's NF-ResNets train without AGC. The constructor keeps decay off biases and gains.
optim_wrapper = dict(
    type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.003, momentum=0.9, nesterov=True, weight_decay=5e-5))
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[21_000, 27_000],
                        gamma=0.1)]

default_hooks = dict(checkpoint=dict(
    type='CheckpointHook', by_epoch=False, interval=3000, max_keep_ckpts=3, save_best='mIoU'))
