"""AGC for depth_nyu.py, which is not of the paper: without it, training a normalizer-free head from random weights at
this learning rate diverged on generated scenes."""
_base_ = 'depth_nyu.py'
optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    # larger than the 0.01 of batches of 1024 and more (NFNets, Figure 2b); the last layer is not clipped (section 4.1)
    agc=dict(clipping=0.04, eps=1e-3), paramwise_cfg=dict(agc_exclude=['decode_head.conv_seg.weight']))
