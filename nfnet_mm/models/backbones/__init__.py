"""Backbones: the table of networks, the plan of their blocks, and the modules built from it."""

from .batch_norm import BNNFNet, BNResNet
from .fixup_resnet import FixupResNet
from .nf_regnet import NFRegNet
from .nf_resnet import NFResNet
from .nfnet import NFNet
from .plan import BlockSpec, plan_blocks
from .skipinit_resnet import SkipInitResNet
from .stage import NFStage

__all__ = [
    'BNNFNet',
    'BNResNet',
    'BlockSpec',
    'FixupResNet',
    'NFNet',
    'NFRegNet',
    'NFResNet',
    'NFStage',
    'SkipInitResNet',
    'plan_blocks',
]
