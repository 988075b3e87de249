# Written by tools/write_configs.py from nfnet_mm/recipes.
# 2048 = 32 images x 8 GPUs x 8 accumulated; the ascent step takes a fifth of each.
# Paper: top-1 89.2 (NFNets, Appendix A.5, Table 5, pre-trained on JFT-300M). A reading: The 5,000 steps of warm-up are
# given for ResNets, and taken over for NFNets.
_base_ = 'nfnet_f0.py'
# SET ME, or --cfg-options weights=FILE: the last checkpoint of pretrain_nfnet_f4.py, or any other of this network.
weights = None
model = dict(
    backbone=dict(arch='F4', drop_path_rate=0.1, init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)),
    head=dict(dropout=0.25))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=384)
test_pipeline[1].update(type='nfnet_mm.ResizeCrop32', size=512)
train_dataloader = dict(
    batch_size=32, dataset=dict(pipeline=train_pipeline), collate_fn=dict(_delete_=True, type='default_collate'))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=1e-5))
train_cfg = dict(
    _delete_=True, type='nfnet_mm.TotalBatchTrainLoop', total_batch=2048, lr_batch=None, max_iters=15000,
    val_interval=1000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, end=5001),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5000)]
custom_hooks = [
    dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-4),
    dict(type='nfnet_mm.SAMHook', rho=0.05, fraction=0.2)]
