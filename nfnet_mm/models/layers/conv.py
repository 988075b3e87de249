"""The conv of the papers' baselines: nothing but TensorFlow's padding and Haiku's initial weights."""

from torch import Tensor, nn
from torch.nn import functional as F

from .padding import pad_same


class SameConv2d(nn.Conv2d):
    """A square conv with SAME padding (see :func:`same_padding`).

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, bias: as in ``nn.Conv2d``.

    Shape: (N, I, H, W) -> (N, O, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ):
        both = dilation * (kernel_size - 1) // 2  # with stride 1 and an odd kernel
        super().__init__(in_channels, out_channels, kernel_size, stride, both, dilation, groups, bias)

    def reset_parameters(self) -> None:
        """Haiku's default: weights from N(0, 1 / fan-in), cut at two standard deviations; bias zero."""
        if self.weight.is_meta:  # nothing to draw, which takes milliseconds
            return
        std = self.weight[0].numel() ** -0.5
        nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        padding: str | tuple[int, ...] = self.padding
        if self.stride[0] > 1 or self.kernel_size[0] % 2 == 0:
            x, padding = pad_same(x, self.kernel_size[0], self.stride[0], self.dilation[0])
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
