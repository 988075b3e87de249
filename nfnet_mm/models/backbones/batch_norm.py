"""The papers' baselines with BatchNorm: their ResNets, and the shapes of the NFNets."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nfnet_mm.errors import UserError
from nfnet_mm.registry import MODELS

from ..layers import BatchNorm2d, SameConv2d
from ..layers.activations import Activation
from .arch import resolve_arch, resolve_resnet
from .base import Stem
from .baseline import Baseline, BaselineBlock
from .plan import BlockSpec, NFArch


class BNBlock(BaselineBlock):
    """Pre-activation bottleneck: BatchNorm and activation before each conv (the authors' ResNet V2).

    The order of the two is ``arch.norm_first``'s. Arguments and shape: :class:`BaselineBlock`.
    """

    def __init__(self, spec: BlockSpec, act: Activation):
        super().__init__(spec, act)
        self.norm_first = spec.arch.norm_first
        self.bn0, self.bn1 = BatchNorm2d(spec.in_channels), BatchNorm2d(spec.width)
        self.bn1b = BatchNorm2d(spec.width) if self.conv1b is not None else None
        self.bn2 = BatchNorm2d(spec.width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        out = self.active(x, self.bn0)
        shortcut = self.shortcut(x, out)
        out = self.conv1(self.active(self.conv0(out), self.bn1))
        if self.conv1b is not None and self.bn1b is not None:
            out = self.conv1b(self.active(out, self.bn1b))
        return self.add(shortcut, self.conv2(self.active(out, self.bn2)))

    def active(self, x: Tensor, norm: BatchNorm2d) -> Tensor:
        """What a conv reads."""
        return self.act(norm(x)) if self.norm_first else norm(self.act(x))


class PostBNBlock(BaselineBlock):
    """Post-activation bottleneck: BatchNorm after each conv, activation after the sum (the authors' ResNet V1).

    Arguments and shape: :class:`BaselineBlock`.
    """

    def __init__(self, spec: BlockSpec, act: Activation):
        super().__init__(spec, act)
        self.shortcut_bn = BatchNorm2d(spec.out_channels) if spec.transition else None
        self.bn0, self.bn1 = BatchNorm2d(spec.width), BatchNorm2d(spec.width)
        self.bn1b = BatchNorm2d(spec.width) if self.conv1b is not None else None
        self.bn2 = BatchNorm2d(spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        shortcut = self.shortcut(x, x)
        if self.shortcut_bn is not None:
            shortcut = self.shortcut_bn(shortcut)
        out = self.act(self.bn0(self.conv0(x)))
        out = self.act(self.bn1(self.conv1(out)))
        if self.conv1b is not None and self.bn1b is not None:
            out = self.act(self.bn1b(self.conv1b(out)))
        return self.act(self.add(shortcut, self.bn2(self.conv2(out))))


class BNBackbone(Baseline):
    """A network with BatchNorm, whose every gamma starts at 1 (the authors' code).

    Args:
        arch: the resolved variant.
        norm_eval: keep BatchNorm in eval mode, on its running averages, while training.
        kwargs: see :class:`Baseline`.
    """

    def __init__(self, arch: NFArch, norm_eval: bool = False, **kwargs: Any):
        if not isinstance(norm_eval, bool):
            raise UserError(f'norm_eval={norm_eval!r} must be True or False')
        self.norm_eval = norm_eval
        super().__init__(arch, **kwargs)

    def build_stem(self) -> Stem:
        """BatchNorm before each of its activations."""
        convs, active = [SameConv2d(*conv) for conv in self.stem_convs()], not self.arch.preact
        norms = [BatchNorm2d(conv.out_channels) for conv in convs[: len(convs) - (not active)]]
        return Stem(self.arch, convs, self.act, norms, active)

    def build_block(self, spec: BlockSpec) -> BaselineBlock:
        """A block of the variant's kind."""
        return (BNBlock if self.arch.preact else PostBNBlock)(spec, self.act)

    def build_feature(self) -> None:
        """The final conv where the family has one, and the BatchNorm of the last activation."""
        if self.arch.final_channels:
            self.final_conv = SameConv2d(self.arch.widths[-1], self.arch.final_channels)
        self.final_bn = BatchNorm2d(self.feature_channels) if self.arch.preact else None

    def feature(self, x: Tensor) -> Tensor:
        """The last activation: of BatchNorm, or the last block's."""
        x = x if self.final_conv is None else self.final_conv(x)
        if self.final_bn is None:
            return x
        return self.act(self.final_bn(x)) if self.arch.norm_first else self.final_bn(self.act(x))


@MODELS.register_module()
class BNResNet(BNBackbone):
    """The BatchNorm ResNet of both papers: pre-activation, SAME padding, no biases (the authors' code).

    torchvision's and mmpretrain's ResNets are post-activation and pad otherwise. BatchNorm is :class:`BatchNorm2d`.

    Args:
        depth: 50, 101, 152, 200, 288 or 600.
        preact: activations before the convs and none on the shortcut; else the post-activation ResNet, whose outputs
            0-3 are activated and whose output 4 is the same as 3.
        attention: ``'se'`` (hidden width 0.25, not doubled) or ``'eca'`` after the last conv of each block, with a
            depth or a dict that states none; None for none.
        arch: instead of a depth: a dict of its shape (``widths``, ``depths``, ``stem_channels``, ``attention``, ...).
        norm_first: BatchNorm, activation, conv; else activation, BatchNorm, conv, as in Figures 1 and 2 of NF-ResNets
            (with ``preact``). That output 4 then is BatchNorm of the activation is our reading.
        norm_eval: keep BatchNorm in eval mode while training, as in mmdet.
        in_channels, out_indices, frozen_stages, strides, dilations, with_cp, act, drop_path_rate, init_cfg:
            see :class:`Backbone`. Frozen stages' BatchNorm is in eval mode, too.

    Shape: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) for each of ``out_indices``, rounded up. Output 4 is the
    activation of the final BatchNorm, which exists only if it is asked for.

    Example:
        >>> net = BNResNet(depth=50, out_indices=(0, 4))
        >>> net.out_channels, net.out_strides
        ((256, 2048), (4, 32))
    """

    def __init__(
        self,
        depth: int | str | Mapping[str, Any] = 50,
        preact: bool = True,
        attention: str | None = None,
        arch: str | Mapping[str, Any] | None = None,
        norm_first: bool = True,
        norm_eval: bool = False,
        **kwargs: Any,
    ):
        order = {name: value for name, value in (('preact', preact), ('norm_first', norm_first)) if value is not True}
        super().__init__(resolve_resnet('BNResNet', depth, arch, attention, **order), norm_eval, **kwargs)


@MODELS.register_module()
class BNNFNet(BNBackbone):
    """The shape of an NFNet with BatchNorm in place of what is normalizer-free in it (NFNets, Table 6, "-NF, +BN").

    It is not in the released code, so this is a reading: a BatchNorm before every activation (of the stem, the blocks
    and the final conv), plain convs without bias, no alpha, beta, gamma and SkipInit, Squeeze-Excite not doubled.

    Args:
        arch: ``'F0'``-``'F7'``, ``'nano'`` (small, for demos), or a dict of its shape as for ``NFNet``.
        norm_eval: keep BatchNorm in eval mode while training, as in mmdet.
        in_channels, out_indices, frozen_stages, strides, dilations, with_cp, act, drop_path_rate, init_cfg:
            see :class:`Backbone`. Frozen stages' BatchNorm is in eval mode, too.

    Shape: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) for each of ``out_indices``, rounded up.

    Example:
        >>> BNNFNet('nano', out_indices=(3, 4)).out_channels
        (128, 256)
    """

    def __init__(self, arch: str | Mapping[str, Any] = 'F0', norm_eval: bool = False, **kwargs: Any):
        super().__init__(resolve_arch('BNNFNet', arch), norm_eval, **kwargs)
