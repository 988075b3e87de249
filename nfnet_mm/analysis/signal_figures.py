"""The networks of the signal propagation plots in NF-ResNets: Figures 1, 2 and 6 to 11.

All have the shape of the ResNet-600. Each is built by itself, so that only one is in memory. Their weights are what
the paper says they are where it does; what is our reading is said here.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nfnet_mm.models.backbones import BNResNet, FixupResNet, NFResNet, SkipInitResNet
from nfnet_mm.models.layers import SameConv2d, WSConv2d, activation_gain


class Figure(NamedTuple):
    """A figure: its networks by what they are called in it, and how to draw it."""

    what: str
    networks: Mapping[str, Callable[[], nn.Module]]
    log: bool = False
    float64: bool = False  # variances beyond what float32 holds


DEPTH: dict[str, Any] = dict(depths=(50, 50, 50, 50))


def _bn(he: bool, **options: Any) -> nn.Module:
    """A BatchNorm network, its convs from N(0, 2 / fan-in) (He) or N(0, 1 / fan-in)."""
    net = BNResNet(arch={**DEPTH, **options.pop('arch', {})}, **options)
    return _drawn(net, 2.0 if he else 1.0)


def _drawn(net: nn.Module, power: float) -> nn.Module:
    for conv in net.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.weight, std=(power / conv.weight[0].numel()) ** 0.5)
    return net


def _nf(arch: Mapping[str, Any] | None = None, **options: Any) -> NFResNet:
    """The normalizer-free network of the paper's sections 3 and 4: alpha 1, no SkipInit."""
    net = NFResNet(arch={**DEPTH, **(arch or {})}, alpha=1.0, **options)
    for module in net.modules():
        if isinstance(getattr(module, 'skip_gain', None), Tensor):
            nn.init.ones_(module.skip_gain)  # type: ignore[arg-type]
    return net


def _he_in_place_of_standardisation() -> nn.Module:
    """The green one of Figure 2: convs from N(0, 2 / fan-in), without gamma; what they read is still beta's."""
    net = _nf()
    for parent in list(net.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, WSConv2d):
                plain = SameConv2d(
                    conv.in_channels,
                    conv.out_channels,
                    conv.kernel_size[0],
                    conv.stride[0],
                    conv.dilation[0],
                    conv.groups,
                )
                beta = conv.input_scale if parent is net.stem else conv.input_scale / net.act_gain
                nn.init.normal_(plain.weight, std=beta * (2 / plain.weight[0].numel()) ** 0.5)
                setattr(parent, name, plain)
    return net


def _no_normalisation() -> nn.Module:
    net = SkipInitResNet(arch=DEPTH)
    for name, parameter in net.named_parameters():
        if name.endswith('skip_gain'):
            nn.init.ones_(parameter)
    return _drawn(net, 2.0)


def _wrong_gain() -> nn.Module:
    """ReLU's gain of He et al., sqrt(2), which keeps the second moment and not the variance."""
    net = _nf()
    for conv in net.modules():
        if isinstance(conv, WSConv2d) and conv is not net.stem.get_submodule('conv0'):
            conv.input_scale *= 2**0.5 / activation_gain('relu')
    return net


class _Halved(nn.Module):
    """Attention of half its gate, which the block's factor 2 makes the gate as it is."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x) / 2


def _plain_squeeze_excite() -> nn.Module:
    net = _nf(dict(attention='se'))
    for stage in net.stages:
        for block in stage:  # type: ignore[attr-defined]
            block.attention = _Halved(block.attention)
    return net


_LINEAR: dict[str, Any] = dict(arch=dict(stem_pool=None), act='identity')
FIGURES: Mapping[str, Figure] = {
    '1': Figure(
        'BatchNorm ResNet-600, both orders',
        {
            'BN-ReLU-Conv': lambda: _bn(True),
            # The paper says He's weights and a branch at variance 1, which takes N(0, 1 / fan-in) in this order.
            'ReLU-BN-Conv': lambda: _bn(False, norm_first=False),
        },
    ),
    '2': Figure(
        'ResNet-600 with BatchNorm, and normalizer-free without and with scaled weight standardisation',
        {
            'BatchNorm, ReLU-BN-Conv': lambda: _bn(False, norm_first=False),
            'normalizer-free, He init': _he_in_place_of_standardisation,
            'normalizer-free, scaled WS': _nf,
        },
    ),
    '6': Figure('ResNet-600 without any normalisation, He init', {'no normalisation': _no_normalisation}, True, True),
    '7': Figure(
        'ResNet-600 with linear activations, without max pooling',
        {'BatchNorm': lambda: _bn(False, **_LINEAR), 'normalizer-free': lambda: _nf(**_LINEAR)},
    ),
    '8': Figure('NF-ResNet-600 with the gain sqrt(2)', {'gain sqrt(2)': _wrong_gain, 'gain of ReLU': _nf}),
    '9': Figure(
        'NF-ResNet-600 with Squeeze-Excite that is not doubled',
        {'not doubled': _plain_squeeze_excite, 'doubled': lambda: _nf(dict(attention='se'))},
    ),
    '10': Figure('ResNet-600 with FixUp', {'FixUp': lambda: FixupResNet(arch=DEPTH)}),
    '11': Figure('ResNet-600 V1, post-activation', {'post-activation BatchNorm': lambda: _bn(True, preact=False)}),
}


def build(figure: Figure, name: str, seed: int = 0) -> nn.Module:
    """A network of a figure, in training mode, so that BatchNorm takes the batch's statistics."""
    torch.manual_seed(seed)
    net = figure.networks[name]()
    return net.double() if figure.float64 else net
