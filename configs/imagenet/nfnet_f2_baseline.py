# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 images x 8 GPUs x 4 accumulated.
# Paper: top-1 82.0 (NFNets, Table 2). A reading: The baseline has the depths of the variants, as the table's rows
# differ in width and convs.
_base_ = 'nfnet_f2.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(3, 6, 18, 9), widths=(256, 512, 1024, 2048), extra_conv=False)),
    head=dict(in_channels=4096))
train_dataloader = dict(batch_size=128, collate_fn=dict(_delete_=True, type='default_collate'))
