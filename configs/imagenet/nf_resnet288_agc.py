# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 32 images x 8 GPUs x 16 accumulated.
# In neither paper.
_base_ = 'nf_resnet288.py'
optim_wrapper = dict(type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3), optimizer=dict(lr=1.6))
train_cfg = dict(total_batch=4096, lr_batch=4096)
