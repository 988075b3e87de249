from .backbones import NFNet, NFRegNet, NFResNet
from .ema import WarmupEMA

__all__ = ['NFNet', 'NFRegNet', 'NFResNet', 'WarmupEMA']
