from mmpretrain.models.backbones import ResNet
from mmpretrain.models.backbones.resnet import Bottleneck

from nfnet_mm.registry import MODELS


@MODELS.register_module()
class BNResNet(ResNet):
    """mmpretrain's ResNet, also in the depths of NF-ResNets (section 5.1) that it lacks: 200 and 288 layers."""
    arch_settings = {**ResNet.arch_settings, 200: (Bottleneck, (3, 24, 36, 3)), 288: (Bottleneck, (24, 24, 24, 24))}
