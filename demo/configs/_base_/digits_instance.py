"""The generated digits (demo.digits) in mmdet."""
_base_ = 'runtime.py'
default_scope = 'mmdet'
data_root = 'data/digits/'
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
# No flips: a mirrored digit is another sign.
train_pipeline = [*load, dict(type='PackDetInputs')]
# The masks are pasted back by the scale that Resize notes, here 1.
test_pipeline = [*load, dict(type='Resize', scale=(128, 128)), dict(type='PackDetInputs', meta_keys=(
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
dataset = dict(
    type='CocoDataset', data_root=data_root, metainfo=dict(classes=tuple('0123456789')))
train_dataloader = dict(
    batch_size=8, num_workers=1, persistent_workers=True, sampler=dict(type='InfiniteSampler'),
    dataset=dict(ann_file='annotations/train.json', data_prefix=dict(img='train/'), pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    batch_size=8, num_workers=1, persistent_workers=True, drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='annotations/val.json', data_prefix=dict(img='val/'), test_mode=True, pipeline=test_pipeline,
                 **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator

default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
