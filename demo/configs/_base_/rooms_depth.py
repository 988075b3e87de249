"""The ray-cast rooms (demo.rooms) in mmseg, laid out as NYU Depth v2: depths in millimetres, 16-bit."""
_base_ = 'runtime.py'
default_scope = 'mmseg'
data_root = 'data/rooms/'
load = [dict(type='LoadImageFromFile'), dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3)]
train_pipeline = [*load, dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
test_pipeline = [*load, dict(type='PackSegInputs')]
dataset = dict(type='NYUDataset', data_root=data_root)
loader = dict(batch_size=8, num_workers=1, persistent_workers=True)
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(data_prefix=dict(img_path='images/train', depth_map_path='annotations/train'),
                 pipeline=train_pipeline, **dataset), **loader)
val_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix=dict(img_path='images/test', depth_map_path='annotations/test'),
                 pipeline=test_pipeline, test_mode=True, **dataset), **loader)
val_evaluator = dict(type='nfnet_mm.PixelDepthMetric')
test_dataloader, test_evaluator = val_dataloader, val_evaluator
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
