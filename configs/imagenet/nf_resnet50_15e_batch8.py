# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 8 = 8 images x 1 GPU.
# Paper: top-1 69.6 (NF-ResNets, Table 2, 15 epochs). BatchNorm: 65.7.
_base_ = 'nf_resnet50.py'
total_batch = 8
max_iters, warmup = 15 * _base_.images // total_batch, 5 * _base_.images // total_batch  # 2,402,188 and 800,729
model = dict(backbone=dict(drop_path_rate=0.0), head=dict(dropout=0.0))
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=0.025))
train_cfg = dict(total_batch=total_batch, lr_batch=total_batch, max_iters=max_iters, val_interval=160145)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
default_hooks = dict(logger=dict(interval=1000), checkpoint=dict(interval=20000))
