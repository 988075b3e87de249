# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 64 images x 8 GPUs x 8 accumulated.
# Paper: top-1 82.3 (NFNets, Table 2). A reading: The baseline has the depths of the variants, as the table's rows
# differ in width and convs.
_base_ = 'nfnet_f3.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(4, 8, 24, 12), widths=(256, 512, 1024, 2048), extra_conv=False)),
    head=dict(in_channels=4096))
train_dataloader = dict(batch_size=64, collate_fn=dict(_delete_=True, type='default_collate'))
