"""Pascal VOC 2012 (NF-ResNets, Appendix H.1): train + aug -> val, one centre crop in the test."""
crop = (513, 513)
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
test_dataloader, test_evaluator = val_dataloader, val_evaluator
