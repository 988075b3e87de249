# 1024 = 128 images x 8 GPUs.
# Paper: top-1 77.0 (NF-ResNets, Table 3).
_base_ = '../_base_/nf_regnet_imagenet.py'
model = dict(backbone=dict(arch='B0'), head=dict(in_channels=960, dropout=0.2))
optim_wrapper = dict(optimizer=dict(weight_decay=5e-5))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1]['scale'] = 192
test_pipeline[1]['scale'], test_pipeline[2]['crop_size'] = 224 + 32, 224
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
