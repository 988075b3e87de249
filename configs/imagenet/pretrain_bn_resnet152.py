# 1024 = 128 images x 8 GPUs.
# Paper: see the fine-tuning.
_base_ = '../_base_/nf_resnet_pretrain.py'
model = dict(backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=152, out_indices=(3, )))
