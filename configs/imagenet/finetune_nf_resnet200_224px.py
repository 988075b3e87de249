# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 2048 = 64 images x 8 GPUs x 4 accumulated.
# Paper: top-1 82.9 (NFNets, Table 4, pre-trained on JFT-300M).
_base_ = 'finetune_nf_resnet50_224px.py'
model = dict(backbone=dict(depth=200, init_cfg=dict(checkpoint='work_dirs/pretrain_nf_resnet200/iter_138643.pth')))
train_dataloader = dict(batch_size=64)
