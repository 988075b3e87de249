# 4096 = 32 images x 8 GPUs x 16 accumulated; 40 epochs.
# Paper: see the fine-tuning.
_base_ = '../_base_/nfnet_pretrain.py'
model = dict(backbone=dict(arch='F4', with_cp=True), head=dict(in_channels=3072))
