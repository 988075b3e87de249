"""Faster R-CNN on small pictures of digits, for the claims: the demo's Mask R-CNN without masks, and a flat rate."""
_base_ = 'mask_rcnn_nfnet_nano_digits.py'

max_iters = 400
model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None))
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=4, dataset=dict(pipeline=[*load, dict(type='PackDetInputs')]), **loader)
val_dataloader = dict(
    dataset=dict(pipeline=[*load, dict(type='Resize', scale=(64, 64)), dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=100)
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=25)]
default_hooks = dict(checkpoint=None, logger=dict(interval=100))
