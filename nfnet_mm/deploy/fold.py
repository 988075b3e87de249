"""Folding: standardised convs become plain ones, whose weights are what the others compute at every call."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.block import NFBlock
from nfnet_mm.models.layers import WSConv2d, avg_pool2d_same
from nfnet_mm.models.layers.convolution import conv_forward
from nfnet_mm.models.layers.precision import autocast_dtype
from nfnet_mm.models.layers.standardize import needs_plain_operations


class FoldedConv2d(nn.Conv2d):
    """A plain conv that computes what a :class:`WSConv2d` does in evaluation.

    Args:
        conv: whose weight is standardised, once.
        scale: a number or 0-d tensor that multiplies the output, through weight and bias.

    Shape: (N, I, H, W) -> (N, O, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, conv: WSConv2d, scale: Tensor | float = 1.0):
        settings: Any = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
        super().__init__(conv.in_channels, conv.out_channels, *settings, device='meta')  # type: ignore[misc]  # nothing is drawn
        self.pad_same, self.training = conv.pad_same, False
        self.weight = _frozen(conv.standardized_weight(scale))
        self.bias = None if conv.bias is None else _frozen(conv.bias * scale)

    def forward(self, x: Tensor, scale: Tensor | float | None = None) -> Tensor:
        """The conv of ``x``; ``scale`` multiplies its output."""
        x, padding = WSConv2d.padded(self, x)  # type: ignore[arg-type]
        settings: Any = self.stride, padding, self.dilation, self.groups
        tensors = (x, self.weight) if self.bias is None else (x, self.weight, self.bias)
        differentiated = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
        plain = differentiated or needs_plain_operations() or autocast_dtype(x.device.type) is not None
        out = (F.conv2d if plain else conv_forward)(x, self.weight, self.bias, *settings)
        return out if scale is None else out * scale

    def train(self, mode: bool = True) -> 'FoldedConv2d':
        """Refuse to be trained."""
        if mode:
            raise UserError(
                'a folded network cannot be trained: its weights are no longer standardised. Train the one that '
                'nfnet_mm.deploy.fold was given, which it leaves as it is'
            )
        return self


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach(), requires_grad=False)


class FoldedBlock(nn.Module):
    """An :class:`NFBlock` in evaluation: plain convs, and its constants in their weights or in the sum.

    Args:
        block: of a network in evaluation.

    Shape: (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)).
    """

    conv0: nn.Module
    conv1: nn.Module
    conv2: nn.Module
    conv_shortcut: nn.Module | None
    conv1b: nn.Module | None

    def __init__(self, block: NFBlock):
        super().__init__()
        self.act, self.shortcut_stride = block.act, block.shortcut_stride
        self.attention, self.attention_inside = block.attention, block.attention_inside
        self.gated = block.attention is not None and not block.attention_inside
        gain = float(block.branch_gain()) * (2 if self.gated else 1)
        in_conv2 = not self.gated and isinstance(block.conv2, WSConv2d)
        self.gain = 1.0 if in_conv2 else gain  # of the branch in the sum
        for name in ('conv_shortcut', 'conv0', 'conv1', 'conv1b', 'conv2'):
            conv = getattr(block, name)
            scale = gain if name == 'conv2' and in_conv2 else 1.0
            setattr(self, name, FoldedConv2d(conv, scale) if isinstance(conv, WSConv2d) else conv)
        self.training = False

    def get_extra_state(self) -> Tensor:
        """The gain, which no weight has taken in: a number, since runtimes want it as one."""
        return torch.tensor(self.gain, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the gain of a checkpoint."""
        self.gain = float(state)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        out, shortcut = self.act(x), x
        if self.conv_shortcut is not None:
            pooled = avg_pool2d_same(out, self.shortcut_stride) if self.shortcut_stride > 1 else out
            shortcut = self.conv_shortcut(pooled)
        out = self.conv1(self.act(self.conv0(out)))
        if self.conv1b is not None:
            out = self.conv1b(self.act(out))
        if self.attention is not None and self.attention_inside:
            out = out * (2 * self.attention(out))
        out = self.conv2(self.act(out))
        if self.gated and self.attention is not None:
            return torch.addcmul(shortcut, out, self.attention(out), value=self.gain)
        return torch.add(shortcut, out, alpha=self.gain)


def is_standardised(model: nn.Module) -> bool:
    """Whether a model has convs with weight standardisation, for :func:`fold` to replace."""
    return any(isinstance(module, WSConv2d) for module in model.modules())


def fold(model: nn.Module) -> nn.Module:
    """A copy of a model, of any framework, with plain convs in the place of standardised ones; the same function.

    It is in evaluation and stays there. The model itself is left as it is.

    Args:
        model: a backbone, or a whole classifier, detector or segmentor with one.

    Raises:
        UserError: nothing in it is standardised (it has no normalizer-free backbone, or is folded already); later, if
            the folded model is to be trained.

    Example:
        >>> from nfnet_mm.models import NFNet
        >>> net, x = NFNet('nano').eval(), torch.randn(1, 3, 64, 64)
        >>> all(torch.allclose(a, b, atol=1e-5) for a, b in zip(fold(net)(x), net(x)))
        True
    """
    if not is_standardised(model):
        raise UserError(
            f'nothing to fold: {type(model).__name__} has no conv with weight standardisation '
            '(a normalizer-free backbone has; one that is folded already has none left)'
        )
    with torch.no_grad():
        return _folded(copy.deepcopy(model).eval(), {})


def _folded(module: nn.Module, done: dict[nn.Module, nn.Module]) -> Any:
    """The module with all parts replaced; a part that stands in two places remains one."""
    if module not in done:
        if type(module) is NFBlock:
            done[module] = FoldedBlock(module)
        elif isinstance(module, WSConv2d):
            done[module] = FoldedConv2d(module)
        elif plain := getattr(module, 'plain', None):  # of a conv that scales its weights in another way
            done[module] = plain()
        else:
            done[module] = module
            for name, child in module._modules.items():
                if child is not None:
                    setattr(module, name, _folded(child, done))
    return done[module]
