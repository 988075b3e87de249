"""Large-scale pre-training of ResNets (NFNets, Appendix A.5): 10 epochs of any large labelled set at 224 px.

The paper's set, JFT-300M with its 18,000 classes, is not public. Put yours into data/pretrain/train/<class>/*.jpg and
set both numbers below; those here are ImageNet-21k's. Crops and flips only; no dropout, stochastic depth, average or
validation.
"""
_base_ = 'nf_resnet_imagenet.py'
images, num_classes = 14197122, 21841
total_batch, warmup = 1024, 5000
max_iters = 10 * images // total_batch  # 138,643
model = dict(
    backbone=dict(drop_path_rate=0.0),
    head=dict(num_classes=num_classes, dropout=0.0, loss=dict(num_classes=num_classes)))
train_dataloader = dict(dataset=dict(
    _delete_=True, type='CustomDataset', data_root='data/pretrain', data_prefix='train',
    pipeline=_base_.train_pipeline))
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
optim_wrapper = dict(optimizer=dict(lr=0.4, weight_decay=1e-5))
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
default_hooks = dict(checkpoint=dict(save_best=None))
