# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 images x 8 GPUs x 4 accumulated.
# Results are those of the fine-tuning. A reading: The paper does not say whether pre-training has dropout and
# stochastic depth: here it has neither. The 5,000 steps of warm-up are given for ResNets, and taken over for NFNets.
_base_ = 'nfnet_f0.py'
# SET ME: the images and classes of your labelled set, data/pretrain/train/<class>/*.jpg; these are ImageNet-21k's.
images, num_classes = 14197122, 21841
model = dict(
    backbone=dict(arch='F4', drop_path_rate=0.0),
    head=dict(dropout=0.0, num_classes=num_classes, loss=dict(num_classes=num_classes)))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=224)
test_pipeline[1].update(type='nfnet_mm.ResizeCrop32', size=224)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root='data/pretrain', data_prefix='train', pipeline=train_pipeline),
    collate_fn=dict(_delete_=True, type='default_collate'))
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
optim_wrapper = dict(optimizer=dict(weight_decay=1e-6))
train_cfg = dict(max_epochs=40, images=images)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, end=5001),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5000)]
default_hooks = dict(checkpoint=dict(save_best=None))
custom_hooks = []
