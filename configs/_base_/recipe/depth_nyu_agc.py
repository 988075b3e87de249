# Written by tools/write_configs.py from nfnet_mm/recipes.
"""AGC for depth_nyu.py.

A choice, as the paper does not mention AGC here: without it, training a normalizer-free head from random weights at
this learning rate diverged on generated scenes. 0.04 is larger than the 0.01 of batches of 1024 and more (NFNets,
Figure 2); the last layer is not clipped (section 4.1).
"""
_base_ = 'depth_nyu.py'
optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.04, eps=1e-3),
    paramwise_cfg=dict(agc_exclude=['decode_head.conv_seg.weight']))
