# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 128 images x 8 GPUs.
# Results are those of the fine-tuning. A reading: The paper does not say whether pre-training has dropout and
# stochastic depth: here it has neither.
_base_ = 'nf_resnet50.py'
# SET ME: the images and classes of your labelled set, data/pretrain/train/<class>/*.jpg; these are ImageNet-21k's.
images, num_classes = 14197122, 21841
model = dict(
    backbone=dict(drop_path_rate=0.0),
    head=dict(dropout=0.0, num_classes=num_classes, loss=dict(num_classes=num_classes)))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=224)
test_pipeline[1].update(type='nfnet_mm.CropResize', size=224)
train_dataloader = dict(
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root='data/pretrain', data_prefix='train', pipeline=train_pipeline))
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3), optimizer=dict(weight_decay=1e-5))
train_cfg = dict(max_epochs=10, images=images)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, end=5001),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5000)]
default_hooks = dict(checkpoint=dict(save_best=None))
