# Written by tools/write_configs.py from nfnet_mm/recipes.
# 1024 = 128 images x 8 GPUs.
# Results are those of the fine-tuning. A reading: The paper does not say whether pre-training has dropout and
# stochastic depth: here it has neither.
_base_ = 'pretrain_nf_resnet50.py'
model = dict(
    backbone=dict(type='nfnet_mm.BNResNet', depth=152),
    head=dict(init_cfg=dict(type='Constant', layer='Linear', val=0)))
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.4, momentum=0.9, nesterov=True, weight_decay=1e-5))
