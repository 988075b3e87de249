"""The one residual block of the normalizer-free families, and stages of blocks."""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers import WSConv2d, avg_pool2d_same, build_attention, conv_of_activation, drop_path_mask, gated_sum
from ..layers.activations import Activation
from ..layers.batch_norm import fixed_averages
from ..layers.standardize import is_compiling
from .plan import BlockSpec


class NFBlock(nn.Module):
    """Normalizer-free pre-activation bottleneck (NFNets, Appendix C, Figures 5 and 6; NF-ResNets, section 4).

    The branch computes alpha * skip_gain * attention(f(beta * gamma * act(x))). None of these numbers ever touches an
    activation: gamma and beta are in the weights of the convs that read it, and everything at the branch's end is
    one gate per sample and channel, so that the sum with the shortcut is a single fused multiply-add. Where there is
    no gate (no attention at the end, no stochastic depth), the last conv's weight and bias carry the numbers.

    Args:
        spec: the block's place and shape, and its alpha, beta and drop rate.
        act: elementwise activation without gain.
        gain: its gain gamma.

    Shape: (N, spec.in_channels, H, W) -> (N, spec.out_channels, ceil(H / spec.stride), ceil(W / spec.stride)).
    """

    def __init__(self, spec: BlockSpec, act: Activation, gain: float):
        super().__init__()
        arch, width = spec.arch, spec.width

        def conv(inputs: int, outputs: int, stride: int = 1, beta: float = 1.0) -> WSConv2d:
            return WSConv2d(inputs, outputs, 1, stride, 1, 1, gain * beta, arch.dialect, arch.padding)

        def conv3x3(stride: int = 1) -> WSConv2d:
            return WSConv2d(width, width, 3, stride, spec.dilation, spec.groups, gain, arch.dialect, arch.padding)

        self.act, self.alpha, self.drop_path_rate = act, spec.alpha, spec.drop_path_rate
        self.shortcut_stride = spec.stride if arch.shortcut_pool else 1  # of the pooling; else the conv strides
        self.conv_shortcut = None
        if spec.transition:
            stride = 1 if arch.shortcut_pool else spec.stride
            self.conv_shortcut = conv(spec.in_channels, spec.out_channels, stride, spec.beta)
        self.conv0 = conv(spec.in_channels, width, beta=spec.beta)
        self.conv1 = conv3x3(spec.stride)
        self.conv1b = conv3x3() if arch.extra_conv else None
        self.conv2 = conv(width, spec.out_channels)
        self.attention_inside = arch.inverted_bottleneck
        self.attention = build_attention(arch.attention, spec.attention_channels, spec.se_hidden)
        self.skip_gain = nn.Parameter(torch.zeros(())) if arch.skip_init else None
        if self.skip_gain is None:
            nn.init.zeros_(self.conv2.gain)  # so that the branch still starts at zero

    def forward(self, x: Tensor, recompute_acts: bool = False) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

        ``recompute_acts``: run the activations again in the backward pass.
        """
        act, again = self.act, recompute_acts
        active, shortcut = act(x), x
        if self.conv_shortcut is not None:
            if self.shortcut_stride > 1:  # the pooling keeps the activation in any case
                shortcut = self.conv_shortcut(avg_pool2d_same(active, self.shortcut_stride))
            else:
                shortcut = conv_of_activation(self.conv_shortcut, act, x, again, active)
        out = conv_of_activation(self.conv0, act, x, again and self.shortcut_stride == 1, active)
        out = conv_of_activation(self.conv1, act, out, again)
        if self.conv1b is not None:
            out = conv_of_activation(self.conv1b, act, out, again)
        if self.attention is not None and self.attention_inside:
            out = out * (2 * self.attention(out))

        mask = drop_path_mask(out, self.drop_path_rate, self.training)
        if mask is None and (self.attention is None or self.attention_inside):
            return shortcut + conv_of_activation(self.conv2, act, out, again, scale=self.branch_gain())
        out = conv_of_activation(self.conv2, act, out, again)
        if self.attention is None or self.attention_inside:
            return torch.addcmul(shortcut, out, (self.branch_gain() * mask).to(out.dtype))
        return gated_sum(shortcut, out, self.attention, 2 * self.alpha, self.skip_gain, mask)

    def branch_gain(self) -> Any:
        """Alpha * skip_gain, a 0-d tensor; a number where there is no skip_gain."""
        return self.alpha if self.skip_gain is None else self.alpha * self.skip_gain

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, drop_path_rate={self.drop_path_rate:.4g}'


class Stage(nn.Sequential):
    """The blocks of one stage, one after the other.

    Args:
        blocks: (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)) each.
    """

    def __init__(self, blocks: Iterable[nn.Module]):
        super().__init__(*blocks)

    def forward(self, x: Tensor, with_cp: bool | str = False) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)), from the last block.

        ``with_cp``: True computes each block again in the backward pass, ``'act'`` only what costs little, its
        activations.
        """
        for block in self:
            if with_cp == 'act':
                x = block(x, recompute_acts=True)
            else:
                x = _recomputed(block, x) if with_cp and torch.is_grad_enabled() else block(x)
        return x


def _recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)``, whose activations are computed again in the backward pass."""
    if is_compiling() or not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in block.modules()):
        # a compiled graph recomputes values only, and no averages
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), fixed_averages(block)))
