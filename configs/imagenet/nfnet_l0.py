# 4096 = 32 images x 8 GPUs x 16 accumulated.
# In no paper.
_base_ = '../_base_/light_nfnet_imagenet.py'
model = dict(backbone=dict(arch='L0'), head=dict(in_channels=2304, dropout=0.2))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1]['scale'] = 224
test_pipeline[1]['scale'], test_pipeline[2]['crop_size'] = 288 + 32, 288
train_dataloader = dict(
    dataset=dict(pipeline=train_pipeline),
    collate_fn=dict(randaugment=dict(magnitude=10)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
