"""Depth from one image by mmsegmentation: NYU Depth v2 (NF-ResNets, Appendix H.2; Laina et al. 2016)."""

from nfnet_mm.dependencies import require

require('mmseg')

from .berhu_loss import BerHuLoss, berhu  # noqa: E402
from .dataset import NYUDepthDataset  # noqa: E402
from .metric import PixelDepthMetric  # noqa: E402
from .transforms import DepthColorJitter, DownsampleCrop  # noqa: E402
from .up_projection import UpConv, UpProjection, UpProjectionHead  # noqa: E402

__all__ = [
    'BerHuLoss',
    'DepthColorJitter',
    'DownsampleCrop',
    'NYUDepthDataset',
    'PixelDepthMetric',
    'UpConv',
    'UpProjection',
    'UpProjectionHead',
    'berhu',
]
