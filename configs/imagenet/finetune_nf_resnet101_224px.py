# Written by tools/write_configs.py from nfnet_mm/recipes.
# 2048 = 128 images x 8 GPUs x 2 accumulated.
# Paper: top-1 81.4 (NFNets, Table 4, pre-trained on JFT-300M).
_base_ = 'finetune_nf_resnet50_224px.py'
# SET ME, or --cfg-options weights=FILE: the last checkpoint of pretrain_nf_resnet101.py, or any other of this network.
weights = None
model = dict(backbone=dict(depth=101, init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)))
