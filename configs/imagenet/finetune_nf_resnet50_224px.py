# Written by tools/write_configs.py from nfnet_mm/recipes.
# 2048 = 128 images x 8 GPUs x 2 accumulated.
# Paper: top-1 79.5 (NFNets, Table 4, pre-trained on JFT-300M).
_base_ = 'nf_resnet50.py'
# SET ME, or --cfg-options weights=FILE: the last checkpoint of pretrain_nf_resnet50.py, or any other of this network.
weights = None
model = dict(
    backbone=dict(drop_path_rate=0.0, init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)),
    head=dict(dropout=0.0))
optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3),
    optimizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9, nesterov=True))
train_cfg = dict(
    _delete_=True, type='nfnet_mm.TotalBatchTrainLoop', total_batch=2048, lr_batch=None, max_iters=15000,
    val_interval=1000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, end=5001),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5000)]
custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-4)]
