# Written by tools/write_configs.py from nfnet_mm/recipes.
# 4096 = 64 samples, each mixed from two images, x 8 GPUs x 8 accumulated; the ascent step takes a fifth of each.
# The paper has SAM for F5 and F6 only.
_base_ = 'nfnet_f3.py'
custom_hooks = [
    dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-5),
    dict(type='nfnet_mm.SAMHook', rho=0.05, fraction=0.2)]
