"""FCN on Pascal VOC 2012 (NF-ResNets, Appendix H.1): 30,000 steps at batch 16, with weight decay and without AGC."""
_base_ = ['../model/fcn.py', '../data/voc.py', '../runtime/mmseg.py']
model = dict(data_preprocessor=dict(size=_base_.crop), decode_head=dict(num_classes=21))
# Batch 16 = train_dataloader.batch_size (4) x devices x accumulation, the last derived: 4 devices accumulate none.
total_batch, max_iters = 16, 30_000
train_cfg = dict(
    type='nfnet_mm.TotalBatchTrainLoop', total_batch=total_batch, lr_batch=total_batch, max_iters=max_iters,
    val_interval=3000)
# The constructor keeps decay off biases and gains.
optim_wrapper = dict(
    type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.003, momentum=0.9, nesterov=True, weight_decay=5e-5))
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[21_000, 27_000],
                        gamma=0.1)]
default_hooks = dict(checkpoint=dict(interval=3000, save_best='mIoU'))
