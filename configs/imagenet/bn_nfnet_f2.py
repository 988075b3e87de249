# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 128 samples, each mixed from two images, x 8 GPUs x 4 accumulated.
# Paper: top-1 85.1 (NFNets, Table 6). A reading: Where BatchNorm stands is not said: before every activation here, in
# place of standardised weights, variance planning and SkipInit. Nor is whether AGC is kept: it is here, as the rest of
# the recipe.
_base_ = 'nfnet_f2.py'
model = dict(backbone=dict(type='nfnet_mm.BNNFNet'))
custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-5, update_buffers=True)]
