"""The SkipInit baseline of the NF-ResNets paper."""

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


class SkipInitBlock(BaselineBlock):
    """Pre-activation bottleneck of convs with biases, its branch times a scalar that starts at 0 (De & Smith 2020).

    Arguments and shape: :class:`BaselineBlock`.
    """

    def __init__(self, spec: BlockSpec, act: Activation):
        super().__init__(spec, act, bias=True)
        self.skip_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        out = self.act(x)
        shortcut = self.shortcut(x, out)
        out = self.act(self.conv1(self.act(self.conv0(out))))
        return self.add(shortcut, self.conv2(out), self.skip_gain)


@MODELS.register_module()
class SkipInitResNet(Baseline):
    """SkipInit ResNet (De & Smith 2020), a baseline of Table 1 of NF-ResNets; pre-activation (the authors' code).

    Args:
        depth: 50, 101, 152, 200, 288 or 600.
        arch: instead of a depth: a dict of its shape (``widths``, ``depths``, ``stem_channels``, ``attention``, ...).
        in_channels, out_indices, frozen_stages, strides, dilations, with_cp, act, drop_path_rate, init_cfg:
            see :class:`Backbone`.

    Shape: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) for each of ``out_indices``, rounded up. Output 4 is the
    activation of the last stage.

    Example:
        >>> net = SkipInitResNet(depth=50, out_indices=(4,))
        >>> net.out_channels, net.stages[0][0].skip_gain.item()
        ((2048,), 0.0)
    """

    def __init__(
        self, depth: int | str | Mapping[str, Any] = 50, arch: str | Mapping[str, Any] | None = None, **kwargs: Any
    ):
        super().__init__(resolve_resnet('SkipInitResNet', depth, arch), **kwargs)

    def build_stem(self) -> Stem:
        """Its conv has no bias."""
        return Stem(self.arch, [SameConv2d(*conv) for conv in self.stem_convs()], self.act)

    def build_block(self, spec: BlockSpec) -> SkipInitBlock:
        """A SkipInit block."""
        return SkipInitBlock(spec, self.act)

    def feature(self, x: Tensor) -> Tensor:
        """The activation of the last stage."""
        return self.act(x)
