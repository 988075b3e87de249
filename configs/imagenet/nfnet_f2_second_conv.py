# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 images x 8 GPUs x 4 accumulated.
# Paper: top-1 82.4 (NFNets, Table 2).
_base_ = 'nfnet_f2.py'
train_dataloader = dict(batch_size=128, collate_fn=dict(_delete_=True, type='default_collate'))
