# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 4 = 4 images x 1 GPU.
# Paper: top-1 69.9 (NF-ResNets, Table 2, 15 epochs). BatchNorm: 55.7.
_base_ = 'nf_resnet50.py'
total_batch = 4
max_iters, warmup = 15 * _base_.images // total_batch, 5 * _base_.images // total_batch  # 4,804,376 and 1,601,458
model = dict(backbone=dict(drop_path_rate=0.0), head=dict(dropout=0.0))
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(total_batch=total_batch, lr_batch=total_batch, max_iters=max_iters, val_interval=320291)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
default_hooks = dict(logger=dict(interval=1000), checkpoint=dict(interval=20000))
