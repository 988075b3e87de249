"""Fine-tuning of pre-trained ResNets on ImageNet (NFNets, Appendix A.5): 15,000 steps at batch 2048; 50 at 224 px.

lr 0.1, not scaled by the batch; no weight decay, dropout or stochastic depth; EMA of decay 0.9999. Tested at the
training size.
"""
_base_ = 'nf_resnet_imagenet.py'
total_batch, max_iters, warmup = 2048, 15000, 5000
model = dict(backbone=dict(drop_path_rate=0.0), head=dict(dropout=0.0))
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=0.0))
train_cfg = dict(total_batch=total_batch, lr_batch=None, max_iters=max_iters, val_interval=1000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-4)]
