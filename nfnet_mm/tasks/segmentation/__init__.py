"""Pascal VOC with an FCN (NF-ResNets, Appendix H.1): what mmsegmentation's transforms lack; needs mmcv alone."""

from nfnet_mm.dependencies import require

require('mmcv')

from .transforms import CenterCropPad, RandomScale  # noqa: E402

__all__ = ['CenterCropPad', 'RandomScale']
