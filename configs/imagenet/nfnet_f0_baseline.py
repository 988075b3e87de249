# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 512 images x 8 GPUs.
# Paper: top-1 80.4 (NFNets, Table 2). A reading: The baseline has the depths of the variants, as the table's rows
# differ in width and convs.
_base_ = 'nfnet_f0.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(1, 2, 6, 3), widths=(256, 512, 1024, 2048), extra_conv=False)),
    head=dict(in_channels=4096))
train_dataloader = dict(batch_size=512, collate_fn=dict(_delete_=True, type='default_collate'))
