"""ImageNet-1k in mmpretrain, trained and tested on as in both papers (NFNets, Appendix A.1).

Training: inception crops and flips. Test: bicubic resizing to 32 pixels more than the test size, then a centre crop.
"""
images = 1281167  # of the training split
resize = dict(backend='pillow', interpolation='bicubic')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, **resize),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256 + 32, edge='short', **resize),
    dict(type='CenterCrop', crop_size=256),
    dict(type='PackInputs')]
dataset = dict(type='ImageNet', data_root='data/imagenet')
loader = dict(num_workers=8, persistent_workers=True, collate_fn=dict(type='default_collate'))
train_dataloader = dict(
    batch_size=32, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(split='train', pipeline=train_pipeline, **dataset), **loader)
val_dataloader = dict(
    batch_size=64, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(split='val', pipeline=test_pipeline, test_mode=True, **dataset), **loader)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
val_cfg = dict()
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict()
