# 2048 = 16 images x 8 GPUs x 16 accumulated.
# Paper: top-1 89.2 after JFT-300M, tested at 512 px (NFNets, Table 5).
_base_ = '../_base_/nfnet_finetune.py'
model = dict(
    backbone=dict(arch='F4', with_cp=True, init_cfg=dict(
        type='nfnet_mm.NFPretrained', checkpoint='work_dirs/pretrain_nfnet_f4/iter_138643.pth')),
    head=dict(in_channels=3072))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1]['scale'] = 384
test_pipeline[1]['scale'], test_pipeline[2]['crop_size'] = 512 + 32, 512
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
