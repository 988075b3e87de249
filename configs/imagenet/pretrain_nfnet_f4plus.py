# 4096 = 32 images x 8 GPUs x 16 accumulated; 20 epochs.
# Paper: see the fine-tuning.
_base_ = '../_base_/nfnet_pretrain.py'
model = dict(backbone=dict(arch='F4+', with_cp=True), head=dict(in_channels=4096))
max_iters, warmup = 20 * _base_.images // _base_.total_batch, _base_.warmup  # 69,321 and 5,000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, T_max=max_iters - warmup)]
