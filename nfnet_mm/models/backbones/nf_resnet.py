"""NF-ResNets."""

from collections.abc import Mapping
from typing import Any

from nfnet_mm.registry import MODELS

from .arch import resolve_resnet
from .base import NFBackbone


@MODELS.register_module()
class NFResNet(NFBackbone):
    """NF-ResNet: a pre-activation ResNet without normalisation.

    Source: Brock et al. 2021, "Characterizing signal propagation to close the performance gap in unnormalized ResNets",
    sections 4 and 5.1.

    Args:
        depth: 26, 50, 101, 152, 200, 288 or 600 (or what ``arch`` takes, given first as in the other families).
        arch: instead of a depth: a network of timm (``'timm/nf_resnet50'``, ``'timm/nf_seresnet50'``,
            ``'timm/nf_ecaresnet50'``, ...) or a dict of the fields of ``NFArch``.
        attention: ``'se'`` or ``'eca'`` after the last conv of each block, with a depth or a dict that states
            none; None for none.
        in_channels, out_indices, frozen_stages, strides, dilations, with_cp, act, alpha, drop_path_rate, init_cfg:
            see :class:`NFBackbone`.

    Shape: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) for each of ``out_indices``, rounded up.

    Example:
        >>> net = NFResNet(depth=26, out_indices=(3,))
        >>> net.out_channels, net.out_strides
        ((2048,), (32,))
    """

    def __init__(
        self,
        depth: int | str | Mapping[str, Any] = 50,
        arch: str | Mapping[str, Any] | None = None,
        attention: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(resolve_resnet('NFResNet', depth, arch, attention), **kwargs)
