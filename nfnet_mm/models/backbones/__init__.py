"""Normalizer-free backbones: the table of networks, the plan of their blocks, and the modules built from it."""

from .nf_regnet import NFRegNet
from .nf_resnet import NFResNet
from .nfnet import NFNet
from .plan import BlockSpec, plan_blocks
from .stage import NFStage

__all__ = ['BlockSpec', 'NFNet', 'NFRegNet', 'NFResNet', 'NFStage', 'plan_blocks']
