"""The BatchNorm baseline."""

from mmpretrain.models.backbones import ResNet
from mmpretrain.models.backbones.resnet import Bottleneck

from nfnet_mm.registry import MODELS


@MODELS.register_module()
class BNResNet(ResNet):
    """mmpretrain's ResNet, also in the depths of NF-ResNets (section 5.1) that it lacks: 200 and 288 layers.

    The stack's usual network, so the usual thing to compare with; the paper's own BatchNorm networks are of the
    pre-activation kind.

    The arguments are those of mmpretrain's ``ResNet``; ``out_indices=(3,)`` is the feature for a classifier.

    Raises:
        KeyError: a depth that is not in the table.

    Example:
        >>> BNResNet(depth=200, out_indices=(3,)).stage_blocks
        (3, 24, 36, 3)
    """

    arch_settings = {**ResNet.arch_settings, 200: (Bottleneck, (3, 24, 36, 3)), 288: (Bottleneck, (24, 24, 24, 24))}

    def train(self, mode: bool = True) -> 'BNResNet':
        """As usual; mmpretrain's returns nothing, which breaks ``net.train()`` in an expression."""
        super().train(mode)
        return self
