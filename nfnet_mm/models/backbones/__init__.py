from .nf_regnet import NFRegNet
from .nf_resnet import NFResNet
from .nf_stage import NFStage
from .nfnet import NFNet

__all__ = ['NFNet', 'NFRegNet', 'NFResNet', 'NFStage']
