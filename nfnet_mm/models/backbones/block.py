"""The one residual block of all families."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layers import WSConv2d, avg_pool2d_same, build_attention, drop_path_mask
from .arch import NFArch


class NFBlock(nn.Module):
    """Normalizer-free pre-activation bottleneck (NFNets, section 4 and Figure 3; NF-ResNets, section 3).

    The branch computes alpha * skip_gain * attention(f(beta * gamma * act(x))). None of these numbers ever touches an
    activation: gamma and beta are in the weights of the convs that read it, and everything at the branch's end is
    one gate per sample and channel, so that the sum with the shortcut is a single fused multiply-add. Where there is
    no gate (no attention at the end, no stochastic depth), the last conv's weight and bias carry the numbers.

    Args:
        arch: the variant.
        stage: index of the stage, for what differs by stage.
        in_channels, out_channels: channels of the input and of the output.
        transition: whether this is the first block of its stage, with a conv on the shortcut, which then starts from
            the activations.
        stride, dilation: of the 3x3 convs (the stride: of the first).
        first: whether this is the network's very first block.
        act: elementwise activation without gain.
        gain: its gain gamma.
        alpha, beta: see :func:`plan_betas`.
        drop_path_rate: probability of dropping a sample's branch in training.

    Shape: (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        arch: NFArch,
        stage: int,
        in_channels: int,
        out_channels: int,
        transition: bool,
        stride: int,
        dilation: int,
        first: bool,
        act: Callable[[Tensor], Tensor],
        gain: float,
        alpha: float,
        beta: float,
        drop_path_rate: float,
    ):
        super().__init__()
        width, groups = arch.bottleneck(stage, in_channels, out_channels, first)
        self.act, self.alpha, self.drop_path_rate = act, alpha, drop_path_rate
        self.shortcut_stride = stride if arch.shortcut_pool else 1  # of the pooling; else the conv strides

        def conv(channels_in, channels_out, kernel, stride=1, dilation=1, groups=1, beta=1.0):
            return WSConv2d(
                channels_in,
                channels_out,
                kernel,
                stride,
                dilation,
                groups,
                input_scale=gain * beta,
                dialect=arch.dialect,
                padding=arch.padding,
            )

        if transition:
            self.conv_shortcut = conv(in_channels, out_channels, 1, 1 if arch.shortcut_pool else stride, beta=beta)
        else:
            self.conv_shortcut = None
        self.conv0 = conv(in_channels, width, 1, beta=beta)
        self.conv1 = conv(width, width, 3, stride, dilation, groups)
        self.conv1b = conv(width, width, 3, 1, dilation, groups) if arch.extra_conv else None
        self.conv2 = conv(width, out_channels, 1)
        self.attention_inside = arch.attention_inside
        self.attention = build_attention(
            arch.attention, width if arch.attention_inside else out_channels, arch.se_ratio, arch.se_divisor
        )
        if arch.skip_init:
            self.skip_gain = nn.Parameter(torch.zeros(()))
        else:
            self.skip_gain = None
            nn.init.zeros_(self.conv2.gain)  # so that the branch still starts at zero

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(x)
        shortcut = x
        if self.conv_shortcut is not None:
            shortcut = avg_pool2d_same(out, self.shortcut_stride) if self.shortcut_stride > 1 else out
            shortcut = self.conv_shortcut(shortcut)

        out = self.conv1(self.act(self.conv0(out)))
        if self.conv1b is not None:
            out = self.conv1b(self.act(out))
        if self.attention is not None and self.attention_inside:
            out = out * (2 * self.attention(out))
        out = self.act(out)

        mask = drop_path_mask(out, self.drop_path_rate, self.training)
        if mask is None and (self.attention is None or self.attention_inside):
            return shortcut + self.conv2(out, scale=self._branch_gain())
        out = self.conv2(out)
        gate = self._branch_gain().to(out.dtype)
        if self.attention is not None and not self.attention_inside:
            gate = 2 * gate * self.attention(out)
        if mask is not None:
            gate = gate * mask
        return torch.addcmul(shortcut, out, gate)

    def _branch_gain(self) -> Tensor:
        """alpha * skip_gain, a 0-d tensor."""
        if self.skip_gain is None:
            return self.conv2.gain.new_tensor(self.alpha)
        return self.alpha * self.skip_gain

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, drop_path_rate={self.drop_path_rate:.4g}'
