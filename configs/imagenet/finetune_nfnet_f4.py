# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 2048 = 16 images x 8 GPUs x 16 accumulated; the ascent step takes a fifth of each.
# Paper: top-1 89.2 (NFNets, Table 5, pre-trained on JFT-300M).
_base_ = 'nfnet_f0.py'
total_batch = 2048
max_iters, warmup = 15000, 5000
model = dict(
    backbone=dict(
        arch='F4', drop_path_rate=0.1, with_cp=True,
        init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint='work_dirs/pretrain_nfnet_f4/iter_138643.pth')),
    head=dict(dropout=0.25))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=384, clip=False)
test_pipeline[1].update(type='nfnet_mm.ResizeCrop32', size=512)
train_dataloader = dict(
    batch_size=16, dataset=dict(pipeline=train_pipeline), collate_fn=dict(_delete_=True, type='default_collate'))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=1e-5))
train_cfg = dict(total_batch=total_batch, lr_batch=None, max_iters=max_iters, val_interval=1000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
custom_hooks = [
    dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-4),
    dict(type='nfnet_mm.SAMHook', rho=0.05, fraction=0.2)]
