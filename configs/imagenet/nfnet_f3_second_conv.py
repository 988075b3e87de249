# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 64 images x 8 GPUs x 8 accumulated.
# Paper: top-1 82.7 (NFNets, Table 2).
_base_ = 'nfnet_f3.py'
train_dataloader = dict(batch_size=64, collate_fn=dict(_delete_=True, type='default_collate'))
