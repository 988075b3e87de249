# 2048 = 128 images x 8 GPUs x 2 accumulated.
# Paper: top-1 81.4 after JFT-300M (NFNets, Table 4).
_base_ = '../_base_/nf_resnet_finetune.py'
model = dict(backbone=dict(
    depth=101, init_cfg=dict(
        type='nfnet_mm.NFPretrained', checkpoint='work_dirs/pretrain_nf_resnet101/iter_138643.pth')))
optim_wrapper = dict(type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1]['scale'] = 224
test_pipeline[1]['scale'], test_pipeline[2]['crop_size'] = 224 + 32, 224
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
