from .nf_regnet import NFRegNet
from .nf_resnet import NFResNet
from .nfnet import NFNet
from .stage import NFStage

__all__ = ['NFNet', 'NFRegNet', 'NFResNet', 'NFStage']
