# Written by tools/write_configs.py from nfnet_mm/recipes.
"""Fine-tune FCN on NFNet-F0 on label maps of your own (docs/own_data_segmentation.md).

Trained on crops, tested on whole images. A choice: 16 crops an update and 60 epochs, for data sets of hundreds to some
ten thousand images; the learning rate is scaled linearly from the NF-ResNets' 0.003 at batch 16. AGC, and its 0.01, are
a choice too.
"""
_base_ = './_base_/recipe/fcn_voc.py'
# SET ME: the folder that holds images/{train,val}/*.jpg and annotations/{train,val}/*.png of the same names, whose
# pixels are labels from 0, and 255 where there is none.
data_root = 'data/own'
num_classes = 2  # all that depends on it follows, by tools/train.py
# deepmind/F0, or a file of DeepMind's, timm's or ours; None starts from random weights.
weights = None
model = dict(
    backbone=dict(
        type='nfnet_mm.NFNet', arch='F0', out_indices=(3, ), drop_path_rate=0.1,
        init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)),
    decode_head=dict(in_channels=1536))
train_dataloader = dict(
    dataset=dict(
        _delete_=True, type='BaseSegDataset', data_root=data_root, img_suffix='.jpg',
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='nfnet_mm.RandomScale', scales=(0.5, 2.0)), dict(type='RandomCrop', crop_size=(513, 513)),
            dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]))
val_dataloader = dict(
    dataset=dict(
        _delete_=True, type='BaseSegDataset', data_root=data_root, img_suffix='.jpg',
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
        test_mode=True))
test_dataloader = val_dataloader
optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3),
    paramwise_cfg=dict(agc_exclude=['decode_head.conv_seg.weight']))
train_cfg = dict(
    _delete_=True, type='nfnet_mm.TotalBatchTrainLoop', total_batch=16, lr_batch=16, max_epochs=60, val_interval=1)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, end=1), dict(type='CosineAnnealingLR', begin=1)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500, save_best='mIoU'))
