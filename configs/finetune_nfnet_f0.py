# Written by tools/write_configs.py from nfnet_mm/recipes.
"""Fine-tune an image classifier, NFNet-F0, on class folders of your own (docs/own_data_classification.md).

As the paper fine-tunes NFNets (Appendix A.4: learning rate 0.1 at batch 2048, weight decay 1e-5, no MixUp, CutMix or
RandAugment), without SAM. A choice: 64 images an update and 30 epochs, for data sets of hundreds to some ten thousand
images; the learning rate is scaled linearly from there.
"""
_base_ = './imagenet/nfnet_f0.py'
# SET ME: the folder that holds train/CLASS/*.jpg and val/CLASS/*.jpg.
data_root = 'data/own'
num_classes = 10  # all that depends on it follows, by tools/train.py
# deepmind/F0, or a file of DeepMind's, timm's or ours; None starts from random weights.
weights = None
model = dict(
    backbone=dict(drop_path_rate=0.1, init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)),
    head=dict(dropout=0.25))
train_dataloader = dict(batch_size=32, collate_fn=dict(_delete_=True, type='default_collate'))
train_cfg = dict(
    _delete_=True, type='nfnet_mm.TotalBatchTrainLoop', total_batch=64, lr_batch=2048, max_epochs=30, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=1e-5))
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, end=3), dict(type='CosineAnnealingLR', begin=3)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500, save_best='auto'))
custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-4)]
