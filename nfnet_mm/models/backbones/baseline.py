"""What the papers' baselines share: a bottleneck of plain convs, and a backbone of such blocks."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from nfnet_mm.errors import UserError

from ..layers import SameConv2d, avg_pool2d_same, build_attention, drop_path_mask
from ..layers.activations import Activation
from .base import Backbone
from .plan import BlockSpec, NFArch


class BaselineBlock(nn.Module):
    """The convs of a bottleneck, and the two ends of its branch; a subclass says what is between them.

    Args:
        spec: the block's place and shape, and its drop rate.
        act: elementwise activation.
        bias: whether the convs have one.

    Shape: (N, spec.in_channels, H, W) -> (N, spec.out_channels, ceil(H / spec.stride), ceil(W / spec.stride)).
    """

    def __init__(self, spec: BlockSpec, act: Activation, bias: bool = False):
        super().__init__()
        arch, width = spec.arch, spec.width
        self.act, self.drop_path_rate = act, spec.drop_path_rate
        self.pool_stride = spec.stride if arch.shortcut_pool else 1  # of the shortcut; else its conv strides
        self.conv_shortcut = None
        if spec.transition:
            stride = spec.stride // self.pool_stride
            self.conv_shortcut = SameConv2d(spec.in_channels, spec.out_channels, 1, stride, bias=bias)
        self.conv0 = SameConv2d(spec.in_channels, width, bias=bias)
        self.conv1 = SameConv2d(width, width, 3, spec.stride, spec.dilation, spec.groups, bias)
        self.conv1b = SameConv2d(width, width, 3, 1, spec.dilation, spec.groups, bias) if arch.extra_conv else None
        self.conv2 = SameConv2d(width, spec.out_channels, bias=bias)
        self.attention = build_attention(arch.attention, spec.attention_channels, spec.se_hidden)

    def shortcut(self, x: Tensor, other: Tensor) -> Tensor:
        """``other``, pooled and convolved, in a block that begins a stage; ``x`` in the others."""
        if self.conv_shortcut is None:
            return x
        return self.conv_shortcut(avg_pool2d_same(other, self.pool_stride) if self.pool_stride > 1 else other)

    def add(self, shortcut: Tensor, branch: Tensor, gain: Tensor | None = None) -> Tensor:
        """The sum of shortcut and branch, the branch times attention, gain and the mask of stochastic depth."""
        gates = [gain, drop_path_mask(branch, self.drop_path_rate, self.training)]
        if self.attention is not None:
            gates.append(self.attention(branch))
        given = [gate for gate in gates if gate is not None]
        if not given:
            return shortcut + branch
        return torch.addcmul(shortcut, branch, reduce(torch.mul, given).to(branch.dtype))

    def extra_repr(self) -> str:
        return f'drop_path_rate={self.drop_path_rate:.4g}'


class Baseline(Backbone):
    """A network of :class:`BaselineBlock`; see :class:`Backbone` for the arguments, but it has no ``alpha``.

    Convs start from Haiku's default: N(0, 1 / fan-in), cut at two standard deviations (the authors' code).
    """

    def __init__(self, arch: NFArch, **kwargs: Any):
        if 'alpha' in kwargs:
            raise UserError(f'alpha={kwargs["alpha"]!r} is of normalizer-free networks: {type(self).__name__} has none')
        super().__init__(arch, alpha=1.0, **kwargs)
