"""What mmengine's MODELS registry finds: the backbones, and the average of the weights that its EMAHook builds."""

from nfnet_mm.engine.ema import WarmupEMA

from .backbones import BNNFNet, BNResNet, FixupResNet, NFNet, NFRegNet, NFResNet, NFStage, SkipInitResNet

__all__ = [
    'BNNFNet',
    'BNResNet',
    'FixupResNet',
    'NFNet',
    'NFRegNet',
    'NFResNet',
    'NFStage',
    'SkipInitResNet',
    'WarmupEMA',
]
