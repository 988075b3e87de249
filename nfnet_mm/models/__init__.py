"""Backbones of normalizer-free networks, and the layers that they are made of."""

from nfnet_mm.engine.ema import WarmupEMA

from .backbones import NFNet, NFRegNet, NFResNet, NFStage

__all__ = ['NFNet', 'NFRegNet', 'NFResNet', 'NFStage', 'WarmupEMA']
