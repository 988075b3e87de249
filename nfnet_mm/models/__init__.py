"""What mmengine's MODELS registry finds: the backbones, and the average of the weights that its EMAHook builds."""

from nfnet_mm.engine.ema import WarmupEMA

from .backbones import NFNet, NFRegNet, NFResNet, NFStage

__all__ = ['NFNet', 'NFRegNet', 'NFResNet', 'NFStage', 'WarmupEMA']
