"""NF-RegNets."""

from collections.abc import Mapping
from typing import Any

from nfnet_mm.registry import MODELS

from .arch import resolve_arch
from .base import NFBackbone


@MODELS.register_module()
class NFRegNet(NFBackbone):
    """NF-RegNet: an EfficientNet-like RegNet without normalisation.

    Source: Brock et al. 2021, "Characterizing signal propagation to close the performance gap in unnormalized ResNets",
    section 5.2.

    Args:
        arch: ``'B0'``-``'B8'``; a network of timm (``'timm/nf_regnet_b0'``-``'timm/nf_regnet_b5'``); or a dict
            of the fields of ``NFArch``.
        in_channels, out_indices, frozen_stages, strides, dilations, with_cp, act, alpha, drop_path_rate, init_cfg:
            see :class:`NFBackbone`.

    Shape: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) for each of ``out_indices``, rounded up.

    Example:
        >>> net = NFRegNet('B0')
        >>> net.out_channels, net.out_strides
        ((36, 78, 156, 330), (4, 8, 16, 32))
    """

    def __init__(self, arch: str | Mapping[str, Any] = 'B0', **kwargs: Any):
        super().__init__(resolve_arch('NFRegNet', arch), **kwargs)
