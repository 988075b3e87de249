# Written by tools/write_configs.py from nfnet_mm/recipes.
# 2048 = 64 images x 8 GPUs x 4 accumulated.
# Paper: top-1 79.6 (NFNets, Table 4, pre-trained on JFT-300M).
_base_ = 'finetune_bn_resnet50_224px.py'
# SET ME, or --cfg-options weights=FILE: the last checkpoint of pretrain_bn_resnet50.py, or any other of this network.
weights = None
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale=320)
test_pipeline[1].update(type='nfnet_mm.CropResize', size=320)
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(backbone=dict(init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=weights)))
