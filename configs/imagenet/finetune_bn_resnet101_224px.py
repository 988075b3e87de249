# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 2048 = 128 images x 8 GPUs x 2 accumulated.
# Paper: top-1 80.8 (NFNets, Table 4, pre-trained on JFT-300M).
_base_ = 'finetune_bn_resnet50_224px.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='work_dirs/pretrain_bn_resnet101/iter_138643.pth')))
