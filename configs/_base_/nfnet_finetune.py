"""Fine-tuning of pre-trained NFNets on ImageNet (NFNets, Appendix A.5): 15,000 steps at batch 2048 with SAM; F4.

lr 0.1, not scaled by the batch; weight decay 1e-5, dropout 0.25, stochastic depth 0.1, crops and flips. Of the average
the paper says that it is as for ResNets: decay 0.9999.
"""
_base_ = 'nfnet_imagenet.py'
total_batch, max_iters, warmup = 2048, 15000, 5000
model = dict(backbone=dict(arch='F4', drop_path_rate=0.1), head=dict(dropout=0.25))
train_dataloader = dict(collate_fn=dict(_delete_=True, type='default_collate'))
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=1e-5))
train_cfg = dict(total_batch=total_batch, lr_batch=None, max_iters=max_iters, val_interval=1000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
custom_hooks = [
    dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-4),
    dict(type='nfnet_mm.SAMHook', rho=0.05, fraction=0.2)]
