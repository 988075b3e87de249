"""Large-scale pre-training of NFNets (NFNets, Appendix A.5) at 224 px and batch 4096; F4, 40 epochs.

The data as in nf_resnet_pretrain.py. The paper gives 5,000 warm-up steps for ResNets and none of its own here. Crops
and flips only; no dropout, stochastic depth, average or validation.
"""
_base_ = 'nfnet_imagenet.py'
images, num_classes = 14197122, 21841
total_batch, warmup = 4096, 5000
max_iters = 40 * images // total_batch  # 138,643
model = dict(
    backbone=dict(arch='F4', drop_path_rate=0.0),
    head=dict(num_classes=num_classes, dropout=0.0, loss=dict(num_classes=num_classes)))
train_dataloader = dict(
    dataset=dict(_delete_=True, type='CustomDataset', data_root='data/pretrain', data_prefix='train',
                 pipeline=_base_.train_pipeline),
    collate_fn=dict(_delete_=True, type='default_collate'))
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
optim_wrapper = dict(optimizer=dict(weight_decay=1e-6))
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
custom_hooks = []
default_hooks = dict(checkpoint=dict(save_best=None))
