# Written by tools/write_configs.py from nfnet_mm/recipes.
"""FCN on Pascal VOC 2012 (NF-ResNets, Appendix H.1): 30,000 steps at batch 16, with weight decay, no AGC."""
_base_ = ['../model/fcn.py', '../data/voc.py', '../runtime/mmseg.py']
model = dict(data_preprocessor=dict(size=_base_.crop), decode_head=dict(num_classes=21))
# An update sees 16 pictures on any number of GPUs; with train_dataloader.batch_size=4, 4 of them accumulate none.
# Another total_batch scales the learning rate, which lr_batch is meant for; steps stay steps.
train_cfg = dict(type='nfnet_mm.TotalBatchTrainLoop', total_batch=16, lr_batch=16, max_iters=30000, val_interval=3000)
optim_wrapper = dict(
    type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.003, momentum=0.9, nesterov=True, weight_decay=5e-5))
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[21000, 27000], gamma=0.1)]
default_hooks = dict(checkpoint=dict(interval=3000, save_best='mIoU'))
