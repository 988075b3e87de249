# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 2048 = 128 images x 8 GPUs x 2 accumulated.
# Paper: top-1 78.1 (NFNets, Table 4, pre-trained on JFT-300M).
_base_ = 'nf_resnet50.py'
total_batch = 2048
max_iters, warmup = 15000, 5000
model = dict(
    backbone=dict(
        _delete_=True, type='nfnet_mm.BNResNet', depth=50, out_indices=(3, ),
        init_cfg=dict(
            type='Pretrained', checkpoint='work_dirs/pretrain_bn_resnet50/iter_138643.pth', prefix='backbone.')),
    head=dict(dropout=0.0))
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=0.0))
train_cfg = dict(total_batch=total_batch, lr_batch=None, max_iters=max_iters, val_interval=1000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-4)]
