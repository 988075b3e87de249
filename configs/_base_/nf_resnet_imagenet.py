"""NF-ResNets on ImageNet (NF-ResNets, section 5.1): 90 epochs at batch 1024, crops and flips only; 50."""
_base_ = 'imagenet.py'
total_batch = 1024
max_iters, warmup = 90 * _base_.images // total_batch, 5 * _base_.images // total_batch  # 112,602 and 6,255
model = dict(
    backbone=dict(type='nfnet_mm.NFResNet', depth=50, out_indices=(4, ), drop_path_rate=0.1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='nfnet_mm.NFClsHead', num_classes=1000, in_channels=2048, dropout=0.25, topk=(1, 5),
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=1000)))
train_dataloader = dict(batch_size=128)
# Without AGC, which came with the second paper; the constructor keeps weight decay off gains and biases.
optim_wrapper = dict(
    type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.4, momentum=0.9, nesterov=True, weight_decay=5e-5))
train_cfg = dict(
    type='nfnet_mm.TotalBatchTrainLoop', total_batch=total_batch, lr_batch=total_batch, max_iters=max_iters,
    val_interval=5 * _base_.images // total_batch)
# From (all but) zero, which a product cannot leave, to the full rate at step `warmup`.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
