# Written by tools/write_configs.py from nfnet_mm/recipes.
"""The NFNet paper's COCO recipe (section 6.3): 22,500 steps at batch 256, as in Ghiasi et al. 2021.

What it leaves open is taken from there (Simple Copy-Paste, section 4): learning rate 0.32 after 1,000 steps of linear
warm-up from 0.0032, divided by 10 at 0.9, 0.95 and 0.975 of the training, weight decay 4e-5.
"""
_base_ = ['../model/mask_rcnn.py', '../data/coco.py', '../runtime/mmdet.py']
# An update sees 256 pictures on any number of GPUs; with train_dataloader.batch_size=2, 128 of them accumulate none.
# Another total_batch scales the learning rate, which lr_batch is meant for; steps stay steps.
train_cfg = dict(
    type='nfnet_mm.TotalBatchTrainLoop', total_batch=256, lr_batch=256, max_iters=22500, val_interval=2500)
optim_wrapper = dict(
    type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.32, momentum=0.9, nesterov=True, weight_decay=4e-5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, milestones=[20250, 21375, 21937], gamma=0.1)]
