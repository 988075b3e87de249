# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4 = 4 images x 1 GPU.
# Paper: top-1 69.9 (NF-ResNets, Table 2).
_base_ = 'nf_resnet50.py'
model = dict(backbone=dict(drop_path_rate=0.0), head=dict(dropout=0.0))
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(total_batch=4, lr_batch=4, max_epochs=15, val_interval=1)
default_hooks = dict(logger=dict(interval=1000), checkpoint=dict(interval=20000))
