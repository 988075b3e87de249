# 1024 = 64 images x 8 GPUs x 2 accumulated.
# Paper: see the fine-tuning.
_base_ = '../_base_/nf_resnet_pretrain.py'
model = dict(backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=200, out_indices=(3, )))
train_dataloader = dict(batch_size=64)
