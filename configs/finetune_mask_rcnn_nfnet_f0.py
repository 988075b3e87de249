# Written by tools/write_configs.py from nfnet_mm/recipes.
"""Fine-tune Mask R-CNN + FPN on NFNet-F0 on a COCO file of your own (docs/own_data_detection.md).

A choice: 16 images an update and 36 epochs, for data sets of hundreds to some ten thousand images; the learning rate is
scaled linearly from the paper's 0.32 at batch 256.
"""
_base_ = './mask_rcnn_nfnet_f0_fpn.py'
# SET ME: the folder that holds annotations/{train,val}.json, train/ and val/.
data_root = 'data/own'
num_classes = 10  # all that depends on it follows, by tools/train.py
# deepmind/F0, or a file of DeepMind's, timm's or ours; None starts from random weights.
weights = None
model = dict(backbone=dict(init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)))
train_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='annotations/train.json', data_prefix=dict(img='train/')))
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file='annotations/val.json', data_prefix=dict(img='val/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/own/annotations/val.json')
test_evaluator = val_evaluator
train_cfg = dict(
    _delete_=True, type='nfnet_mm.TotalBatchTrainLoop', total_batch=16, lr_batch=256, max_epochs=36, val_interval=1)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, end=1), dict(type='CosineAnnealingLR', begin=1)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500, save_best='auto'))
