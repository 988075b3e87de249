"""The generated digits (demo.digits) as class folders in mmpretrain."""
_base_ = 'runtime.py'
default_scope = 'mmpretrain'
data_root = 'data/digits_classes/'
load = dict(type='LoadImageFromFile')
# No flips: a mirrored digit is another sign. The fill is the mean of the noise.
train_pipeline = [
    load, dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/RandomAffine', degrees=15, translate=(0.05, 0.05), scale=(0.8, 1.2), shear=15, fill=50),
    dict(type='PILToNumpy', to_bgr=True), dict(type='PackInputs')]
test_pipeline = [load, dict(type='PackInputs')]
dataset = dict(type='CustomDataset', data_root=data_root)
loader = dict(batch_size=64, num_workers=1, persistent_workers=True, collate_fn=dict(type='default_collate'))
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'), dataset=dict(data_prefix='train', pipeline=train_pipeline, **dataset),
    **loader)
val_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix='val', test_mode=True, pipeline=test_pipeline, **dataset), **loader)
val_evaluator = dict(type='Accuracy')
test_dataloader, test_evaluator = val_dataloader, val_evaluator
default_hooks = dict(visualization=dict(type='VisualizationHook', enable=False))
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
