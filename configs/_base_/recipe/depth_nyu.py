"""Depth on NYU Depth v2 (NF-ResNets, Appendix H.2): 7,500 steps at batch 256.

What the paper leaves open: no weight decay and no warm-up, as it names none.
"""
_base_ = ['../model/up_projection.py', '../data/nyu.py', '../runtime/mmseg.py']
model = dict(data_preprocessor=dict(size=_base_.size[::-1]))
# Batch 256 = train_dataloader.batch_size (32) x devices x accumulation, the last derived: 8 devices accumulate none.
total_batch, max_iters = 256, 7500
train_cfg = dict(
    type='nfnet_mm.TotalBatchTrainLoop', total_batch=total_batch, lr_batch=total_batch, max_iters=max_iters,
    val_interval=750)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.16, momentum=0.9, nesterov=True))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=max_iters, T_max=max_iters)]
default_hooks = dict(checkpoint=dict(interval=750, save_best='delta1', rule='greater'))
