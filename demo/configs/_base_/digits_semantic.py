"""The generated digits (demo.digits) as label maps in mmseg; 0 is the background."""
_base_ = 'runtime.py'
default_scope = 'mmseg'
data_root = 'data/digits_labels/'
# No flips: a mirrored digit is another sign.
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
dataset = dict(
    type='BaseSegDataset', data_root=data_root, img_suffix='.png', pipeline=pipeline,
    metainfo=dict(classes=('background', *'0123456789')))
loader = dict(batch_size=16, num_workers=1, persistent_workers=True)
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'), **dataset), **loader)
val_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'), **dataset), **loader)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_dataloader, test_evaluator = val_dataloader, val_evaluator
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
