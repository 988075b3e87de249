# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 256 images x 8 GPUs x 2 accumulated.
# Paper: top-1 81.7 (NFNets, Table 2). A reading: The baseline has the depths of the variants, as the table's rows
# differ in width and convs.
_base_ = 'nfnet_f1.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 4, 12, 6), widths=(256, 512, 1024, 2048), extra_conv=False)),
    head=dict(in_channels=4096))
train_dataloader = dict(batch_size=256, collate_fn=dict(_delete_=True, type='default_collate'))
