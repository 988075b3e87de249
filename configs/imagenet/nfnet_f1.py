# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 256 samples, each mixed from two images, x 8 GPUs x 2 accumulated. That takes about 26 GB of each.
# Paper: top-1 / top-5 84.7 / 97.1 (NFNets, Table 3).
_base_ = 'nfnet_f0.py'
model = dict(backbone=dict(arch='F1'), head=dict(dropout=0.3))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=224)
test_pipeline[1].update(type='nfnet_mm.ResizeCrop32', size=320)
train_dataloader = dict(
    batch_size=512, dataset=dict(pipeline=train_pipeline), collate_fn=dict(randaugment=dict(magnitude=10)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
