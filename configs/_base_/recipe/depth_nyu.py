# Written by tools/write_configs.py from nfnet_mm/recipes.
"""Depth on NYU Depth v2 (NF-ResNets, Appendix H.2): 7,500 steps at batch 256.

What the paper leaves open: no weight decay and no warm-up, as it names none.
"""
_base_ = ['../model/up_projection.py', '../data/nyu.py', '../runtime/mmseg.py']
model = dict(data_preprocessor=dict(size=_base_.size[::-1]))
# An update sees 256 pictures on any number of GPUs; with train_dataloader.batch_size=32, 8 of them accumulate none.
# Another total_batch scales the learning rate, which lr_batch is meant for; steps stay steps.
train_cfg = dict(type='nfnet_mm.TotalBatchTrainLoop', total_batch=256, lr_batch=256, max_iters=7500, val_interval=750)
optim_wrapper = dict(
    type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.16, momentum=0.9, nesterov=True))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=750, save_best='delta1', rule='greater'))
