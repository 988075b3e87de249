# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 samples, each mixed from two images, x 8 GPUs x 4 accumulated. That takes about 26 GB of each.
# Paper: top-1 / top-5 85.1 / 97.3 (NFNets, Table 3).
_base_ = 'nfnet_f0.py'
model = dict(backbone=dict(arch='F2'), head=dict(dropout=0.4))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=256)
test_pipeline[1].update(type='nfnet_mm.ResizeCrop32', size=352)
train_dataloader = dict(
    batch_size=256, dataset=dict(pipeline=train_pipeline), collate_fn=dict(randaugment=dict(magnitude=10)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
