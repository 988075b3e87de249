# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 256 images x 8 GPUs x 2 accumulated.
# Paper: top-1 82.2 (NFNets, Table 2).
_base_ = 'nfnet_f1.py'
train_dataloader = dict(batch_size=256, collate_fn=dict(_delete_=True, type='default_collate'))
