# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 512 samples, each mixed from two images, x 8 GPUs. That takes about 21 GB of each.
# Paper: top-1 / top-5 83.6 / 96.8 (NFNets, Table 3).
_base_ = '../_base_/recipe/imagenet.py'
model = dict(
    backbone=dict(type='nfnet_mm.NFNet', arch='F0', out_indices=(4, ), drop_path_rate=0.25),
    head=dict(in_channels=3072, dropout=0.2))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=192)
test_pipeline[1].update(type='nfnet_mm.ResizeCrop32', size=256)
train_dataloader = dict(
    batch_size=1024, dataset=dict(pipeline=train_pipeline),
    collate_fn=dict(type='nfnet_mm.mixing_collate', num_classes=1000, randaugment=dict(magnitude=5)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    type='nfnet_mm.AmpAGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3), dtype='bfloat16',
    constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=1.6, momentum=0.9, nesterov=True, weight_decay=2e-5))
train_cfg = dict(
    type='nfnet_mm.TotalBatchTrainLoop', total_batch=4096, lr_batch=4096, max_epochs=360, images=_base_.images,
    val_interval=10)
param_scheduler = [dict(type='LinearLR', start_factor=1e-8, end=5), dict(type='CosineAnnealingLR', begin=5)]
custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-5)]
