from .backbones import NFNet, NFRegNet, NFResNet, NFStage
from .ema import WarmupEMA

__all__ = ['NFNet', 'NFRegNet', 'NFResNet', 'NFStage', 'WarmupEMA']
