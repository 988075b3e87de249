"""ImageNet-1k in mmpretrain, trained and tested on as by the authors' released code.

Training: inception crops and flips. Test: the view of the family. Both are resized bicubically, and pixels that leave
0-255 are clipped for mixing and RandAugment only.
"""
images = 1281167  # of the training split
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='nfnet_mm.RandomResizedCrop', scale=224, clip=False),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='nfnet_mm.CropResize', size=224),
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
