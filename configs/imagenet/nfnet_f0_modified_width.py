# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 512 images x 8 GPUs.
# Paper: top-1 80.9 (NFNets, Table 2).
_base_ = 'nfnet_f0.py'
model = dict(backbone=dict(arch=dict(_delete_=True, depths=(1, 2, 6, 3), extra_conv=False)))
train_dataloader = dict(batch_size=512, collate_fn=dict(_delete_=True, type='default_collate'))
