# Written by tools/write_configs.py from nfnet_mm/recipes.
# 2048 = 32 images x 8 GPUs x 8 accumulated; the ascent step takes a fifth of each.
# Paper: top-1 89.2 (NFNets, Appendix A.5, Table 5, pre-trained on JFT-300M). A reading: The 5,000 steps of warm-up are
# given for ResNets, and taken over for NFNets.
_base_ = 'finetune_nfnet_f4.py'
# SET ME, or --cfg-options weights=FILE: the last checkpoint of pretrain_nfnet_f4plus.py, or any other of this network.
weights = None
model = dict(
    backbone=dict(arch='F4+', init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)),
    head=dict(in_channels=4096))
