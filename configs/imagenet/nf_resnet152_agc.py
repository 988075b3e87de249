# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 4096 = 128 images x 8 GPUs x 4 accumulated.
# NFNets, Figure 2, has curves for 50 and 200: level with BatchNorm.
_base_ = 'nf_resnet152.py'
total_batch = 4096
max_iters, warmup = 90 * _base_.images // total_batch, 5 * _base_.images // total_batch  # 28,150 and 1,563
optim_wrapper = dict(type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3), optimizer=dict(lr=1.6))
train_cfg = dict(total_batch=total_batch, lr_batch=total_batch, max_iters=max_iters, val_interval=1563)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
