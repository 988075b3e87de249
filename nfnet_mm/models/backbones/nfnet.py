"""NFNets."""

from collections.abc import Mapping
from typing import Any

from nfnet_mm.registry import MODELS

from .arch import resolve_arch
from .base import NFBackbone


@MODELS.register_module()
class NFNet(NFBackbone):
    """NFNet: an SE-ResNeXt-D shape without normalisation.

    Source: Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization", section 5.

    Args:
        arch: ``'F0'``-``'F7'``, ``'F0+'``-``'F7+'`` (wider); ``'L0'``, ``'ECA-L0'``-``'ECA-L3'`` and the other
            networks of timm (``'timm/nfnet_f0'``, ``'timm/dm_nfnet_f0'``, ...); ``'nano'`` (small, for demos); or a
            dict of the fields of ``NFArch`` (``widths``, ``depths``, ``group_width``, ``stem_channels``,
            ``attention``, ...).
        in_channels, out_indices, frozen_stages, strides, dilations, with_cp, act, alpha, drop_path_rate, init_cfg:
            see :class:`NFBackbone`.

    Shape: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) for each of ``out_indices``, rounded up.

    Example:
        >>> import torch
        >>> net = NFNet('nano', out_indices=(0, 1, 2, 3))
        >>> net.out_channels, net.out_strides
        ((32, 64, 96, 128), (4, 8, 16, 32))
        >>> [tuple(f.shape) for f in net(torch.zeros(1, 3, 64, 65))][-1]
        (1, 128, 2, 3)
    """

    def __init__(self, arch: str | Mapping[str, Any] = 'F0', **kwargs: Any):
        super().__init__(resolve_arch('NFNet', arch), **kwargs)
