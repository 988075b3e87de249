"""The FixUp baseline of the NF-ResNets paper."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nfnet_mm.registry import MODELS

from ..layers import SameConv2d
from ..layers.activations import Activation
from .arch import resolve_resnet
from .base import Stem
from .baseline import Baseline, BaselineBlock
from .plan import BlockSpec


def _bias() -> nn.Parameter:
    return nn.Parameter(torch.zeros(()))


class FixupBlock(BaselineBlock):
    """Post-activation bottleneck with scalar biases and a scale in place of normalisation (Zhang et al. 2019).

    With L blocks in the network, the first two convs start from He's initialisation times L^(-1/4), the last from zero
    (the authors' code). Arguments and shape: :class:`BaselineBlock`.
    """

    def __init__(self, spec: BlockSpec, act: Activation):
        super().__init__(spec, act)
        self.bias1a, self.bias1b, self.bias2a, self.bias2b, self.bias3a, self.bias3b = (_bias() for _ in range(6))
        self.scale = nn.Parameter(torch.ones(()))
        depth = sum(spec.arch.depths) ** -0.25
        nn.init.normal_(self.conv0.weight, std=(2 / spec.width) ** 0.5 * depth)
        nn.init.normal_(self.conv1.weight, std=(2 / (9 * spec.width)) ** 0.5 * depth)
        nn.init.zeros_(self.conv2.weight)
        if self.conv_shortcut is not None:
            nn.init.normal_(self.conv_shortcut.weight, std=(2 / spec.out_channels) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        x = x + self.bias1a
        out = self.act(self.conv0(x) + self.bias1b)
        out = self.act(self.conv1(out + self.bias2a) + self.bias2b)
        out = self.conv2(out + self.bias3a) * self.scale + self.bias3b
        return self.act(self.add(self.shortcut(x, x), out))


class FixupStem(Stem):
    """A stem whose last activation reads a scalar bias, too, ``bias1``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.bias1 = _bias()

    def normed(self, x: Tensor, i: int) -> Tensor:
        """What activation ``i`` reads."""
        return x + self.bias1 if i == self.num_convs - 1 else x


@MODELS.register_module()
class FixupResNet(Baseline):
    """FixUp ResNet (Zhang et al. 2019), a baseline of Table 1 of NF-ResNets; post-activation (the authors' code).

    Args:
        depth: 50, 101, 152, 200, 288 or 600.
        arch: instead of a depth: a dict of its shape (``widths``, ``depths``, ``stem_channels``, ``attention``, ...).
        in_channels, out_indices, frozen_stages, strides, dilations, with_cp, act, drop_path_rate, init_cfg:
            see :class:`Backbone`.

    Shape: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) for each of ``out_indices``, rounded up. Output 4 is the last
    block's plus the scalar ``bias2``, which exists only if it is asked for. The authors add it behind pooling and
    dropout, so that with dropout in the head theirs is not dropped.

    Example:
        >>> net = FixupResNet(depth=50, out_indices=(4,))
        >>> net.out_channels, net.bias2.item(), net.stages[0][0].scale.item()
        ((2048,), 0.0, 1.0)
    """

    def __init__(
        self, depth: int | str | Mapping[str, Any] = 50, arch: str | Mapping[str, Any] | None = None, **kwargs: Any
    ):
        super().__init__(resolve_resnet('FixupResNet', depth, arch), **kwargs)

    def build_stem(self) -> FixupStem:
        """Its activation is the first block's."""
        return FixupStem(self.arch, [SameConv2d(*conv) for conv in self.stem_convs()], self.act, ends_active=True)

    def build_block(self, spec: BlockSpec) -> FixupBlock:
        """A FixUp block."""
        return FixupBlock(spec, self.act)

    def build_feature(self) -> None:
        """The scalar before the classifier."""
        self.bias2 = _bias()

    def feature(self, x: Tensor) -> Tensor:
        """The last block's output and the scalar."""
        return x + self.bias2
