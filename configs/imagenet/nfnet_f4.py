# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 32 samples, each mixed from two images, x 8 GPUs x 16 accumulated. That takes about 26 GB of each.
# Paper: top-1 / top-5 85.9 / 97.6 (NFNets, Table 3).
_base_ = 'nfnet_f0.py'
model = dict(backbone=dict(arch='F4'), head=dict(dropout=0.5))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=384)
test_pipeline[1].update(type='nfnet_mm.ResizeCrop32', size=512)
train_dataloader = dict(
    batch_size=64, dataset=dict(pipeline=train_pipeline), collate_fn=dict(randaugment=dict(magnitude=15)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
