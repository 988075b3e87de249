# 4096 = 32 images x 8 GPUs x 16 accumulated.
# In no paper; timm has no weights.
_base_ = '../_base_/light_nfnet_imagenet.py'
model = dict(backbone=dict(arch='ECA-L3'), head=dict(in_channels=3072, dropout=0.4))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1]['scale'] = 352
test_pipeline[1]['scale'], test_pipeline[2]['crop_size'] = 448 + 32, 448
train_dataloader = dict(
    dataset=dict(pipeline=train_pipeline),
    collate_fn=dict(randaugment=dict(magnitude=15)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
