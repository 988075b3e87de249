# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 1024 = 128 images x 8 GPUs.
# Paper: top-1 69.9 (NF-ResNets, Table 2, 15 epochs). BatchNorm: 70.9.
_base_ = 'nf_resnet50.py'
total_batch = 1024
max_iters, warmup = 15 * _base_.images // total_batch, 5 * _base_.images // total_batch  # 18,767 and 6,255
model = dict(backbone=dict(drop_path_rate=0.0), head=dict(dropout=0.0))
train_cfg = dict(max_iters=max_iters, val_interval=1251)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
