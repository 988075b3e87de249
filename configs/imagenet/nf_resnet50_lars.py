# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 images x 8 GPUs x 4 accumulated.
# NFNets, section 4. A reading: The paper gives no setting of LARS: its learning rate of 10 is a choice, to be tuned.
_base_ = 'nf_resnet50_agc.py'
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='LARS', lr=10.0, momentum=0.9, nesterov=True, weight_decay=5e-5))
