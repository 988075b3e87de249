# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 64 images x 8 GPUs x 2 accumulated.
# Paper: top-1 82.0 (NF-ResNets, Table 3). Crops and flips only. A reading: Weight decay grows by 1e-5 a level and the
# cosine ends at 0.001, as in the released code; the paper has 5e-5 for all (2e-5 to 5e-5 in its listing) and a cosine
# to zero.
_base_ = 'nf_regnet_b5.py'
train_dataloader = dict(batch_size=64, collate_fn=dict(_delete_=True, type='default_collate'))
