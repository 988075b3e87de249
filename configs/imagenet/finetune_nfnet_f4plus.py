# Written by tools/write_configs.py from nfnet_mm/recipes.py.
# 2048 = 16 images x 8 GPUs x 16 accumulated; the ascent step takes a fifth of each.
# Paper: top-1 89.2 (NFNets, Table 5, pre-trained on JFT-300M).
_base_ = 'finetune_nfnet_f4.py'
model = dict(
    backbone=dict(arch='F4+', init_cfg=dict(checkpoint='work_dirs/pretrain_nfnet_f4plus/iter_69321.pth')),
    head=dict(in_channels=4096))
