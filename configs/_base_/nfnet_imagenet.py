"""NFNets on ImageNet (NFNets, Appendix A): 360 epochs at batch 4096 with AGC, mixing, RandAugment, warm-up EMA; F0."""
_base_ = 'imagenet.py'
total_batch = 4096
max_iters, warmup = 360 * _base_.images // total_batch, 5 * _base_.images // total_batch  # 112,602 and 1,563
model = dict(
    backbone=dict(type='nfnet_mm.NFNet', arch='F0', out_indices=(4, ), drop_path_rate=0.25),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='nfnet_mm.NFClsHead', num_classes=1000, in_channels=3072, dropout=0.2, topk=(1, 5),
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=1000)))
# Half of each batch MixUp, half CutMix; RandAugment on the mixed images.
train_dataloader = dict(
    collate_fn=dict(type='nfnet_mm.mixing_collate', num_classes=1000, randaugment=dict(magnitude=5)))
# bfloat16 activations, float32 parameters and loss. AGCOptimWrapper (without dtype) is its float32 twin.
optim_wrapper = dict(
    type='nfnet_mm.AmpAGCOptimWrapper', dtype='bfloat16', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.1 * total_batch / 256, momentum=0.9, nesterov=True, weight_decay=2e-5),
    agc=dict(clipping=0.01, eps=1e-3))
train_cfg = dict(
    type='nfnet_mm.TotalBatchTrainLoop', total_batch=total_batch, lr_batch=total_batch, max_iters=max_iters,
    val_interval=10 * _base_.images // total_batch)
# From (all but) zero, which a product cannot leave, to the full rate at step `warmup`.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-5)]
