# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 4096 = 32 images x 8 GPUs x 16 accumulated.
# Results are those of the fine-tuning.
_base_ = 'pretrain_nfnet_f4.py'
total_batch = 4096
max_iters, warmup = 20 * _base_.images // total_batch, 5000  # 69,321 and 5,000
model = dict(backbone=dict(arch='F4+'), head=dict(in_channels=4096))
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
