# 4096 = 32 images x 8 GPUs x 16 accumulated.
# In no paper; timm's weights, by another recipe: top-1 84.0 at 320 px.
_base_ = '../_base_/light_nfnet_imagenet.py'
model = dict(backbone=dict(arch='ECA-L1'), head=dict(in_channels=3072, dropout=0.3))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1]['scale'] = 256
test_pipeline[1]['scale'], test_pipeline[2]['crop_size'] = 320 + 32, 320
train_dataloader = dict(
    dataset=dict(pipeline=train_pipeline),
    collate_fn=dict(randaugment=dict(magnitude=10)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
