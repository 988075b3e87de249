# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 images x 8 GPUs x 4 accumulated.
# NFNets, section 4. A reading: The paper gives no threshold, and says that it must be tuned: 1 is a choice.
_base_ = 'nf_resnet50_agc.py'
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', clip_grad=dict(max_norm=1.0), constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=1.6, momentum=0.9, nesterov=True, weight_decay=5e-5))
