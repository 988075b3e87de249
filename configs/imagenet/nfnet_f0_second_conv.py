# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 512 images x 8 GPUs.
# Paper: top-1 81.3 (NFNets, Table 2).
_base_ = 'nfnet_f0.py'
train_dataloader = dict(batch_size=512, collate_fn=dict(_delete_=True, type='default_collate'))
