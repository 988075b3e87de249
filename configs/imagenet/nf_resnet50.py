# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 128 images x 8 GPUs.
# NF-ResNets, Table 1.
_base_ = '../_base_/recipe/imagenet.py'
model = dict(
    backbone=dict(type='nfnet_mm.NFResNet', depth=50, out_indices=(4, ), drop_path_rate=0.1),
    head=dict(in_channels=2048, dropout=0.25))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=224)
test_pipeline[1].update(type='nfnet_mm.CropResize', size=224)
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline), collate_fn=dict(type='default_collate'))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.4, momentum=0.9, nesterov=True, weight_decay=5e-5))
train_cfg = dict(
    type='nfnet_mm.TotalBatchTrainLoop', total_batch=1024, lr_batch=1024, max_epochs=90, images=_base_.images,
    val_interval=5)
param_scheduler = [dict(type='LinearLR', start_factor=1e-8, end=5), dict(type='CosineAnnealingLR', begin=5)]
