# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 16 samples, each mixed from two images, x 8 GPUs x 32 accumulated; the ascent step takes a fifth of each.
# Paper: top-1 / top-5 86.5 / 97.9 (NFNets, Table 3).
_base_ = 'nfnet_f6.py'
custom_hooks = [
    dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-5),
    dict(type='nfnet_mm.SAMHook', rho=0.05, fraction=0.2)]
