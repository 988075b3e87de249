"""Adaptive gradient clipping with the config's own optimizer, see nfnet_f0.py."""
# 0.01 is the papers' value for batches of 1024 to 4096; smaller batches allow a larger one.
nf_optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3),
    constructor='nfnet_mm.NFOptimWrapperConstructor')
# The same in place of an AmpOptimWrapper, where nf_optim_wrapper would train in float32.
nf_amp_optim_wrapper = dict(
    type='nfnet_mm.AmpAGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3),
    constructor='nfnet_mm.NFOptimWrapperConstructor')
