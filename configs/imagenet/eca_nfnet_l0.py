# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 64 samples, each mixed from two images, x 8 GPUs x 8 accumulated.
# In neither paper; timm trains it by another recipe.
_base_ = 'nfnet_f0.py'
model = dict(backbone=dict(arch='ECA-L0'), head=dict(in_channels=2304))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=224)
test_pipeline[1].update(type='nfnet_mm.ResizeCrop32', size=288)
train_dataloader = dict(
    batch_size=128, dataset=dict(pipeline=train_pipeline), collate_fn=dict(randaugment=dict(magnitude=10)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
