"""Channel attention. The modules return the gate, not the gated features: scalars fold into it for free."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nfnet_mm.errors import check_positive


class SqueezeExcite(nn.Module):
    """The gate of Squeeze-Excite: sigmoid(fc2(relu(fc1(mean over H, W)))), the hidden ReLU without gain.

    Args:
        channels: C.
        hidden: width of the hidden layer (the authors': channels * 0.5).

    Shape: (N, C, H, W) -> (N, C, 1, 1), in (0, 1).
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        check_positive(f'the hidden width of Squeeze-Excite on {channels} channels (se_ratio)', hidden)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        for fc in (self.fc1, self.fc2):  # Haiku's default, which the authors left as it is
            std = fc.in_features**-0.5
            nn.init.trunc_normal_(fc.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the gate (N, C, 1, 1), in (0, 1); it is not multiplied in."""
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3)))))
        return torch.sigmoid(gate)[:, :, None, None]


class EfficientChannelAttention(nn.Module):
    """The gate of ECA: sigmoid of a 1-d conv across the channel means (Wang et al. 2020; kernel rule as in timm).

    Args:
        channels: C; the kernel is the odd number near (log2(C) + 1) / 2, at least 3.

    Shape: (N, C, H, W) -> (N, C, 1, 1), in (0, 1).
    """

    def __init__(self, channels: int):
        super().__init__()
        kernel = int((math.log2(channels) + 1) / 2)
        kernel = max(kernel + 1 - kernel % 2, 3)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the gate (N, C, 1, 1), in (0, 1); it is not multiplied in."""
        gate = self.conv(x.mean((2, 3))[:, None])
        return torch.sigmoid(gate).transpose(1, 2)[..., None]


def build_attention(kind: str | None, channels: int, hidden: int | None) -> nn.Module | None:
    """The gate module for ``channels`` channels: ``'se'`` (with ``hidden``), ``'eca'`` or None for none."""
    if kind == 'se' and hidden is not None:
        return SqueezeExcite(channels, hidden)
    return EfficientChannelAttention(channels) if kind == 'eca' else None
