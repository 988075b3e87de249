"""Image classification by mmpretrain: the head, the crops, MixUp, CutMix and RandAugment."""

from nfnet_mm.dependencies import require

require('mmpretrain')

from .head import NFClsHead  # noqa: E402
from .mixing import mixing_collate  # noqa: E402
from .randaugment import NFRandAugment  # noqa: E402
from .views import CropResize, RandomResizedCrop, ResizeCrop32  # noqa: E402

__all__ = ['CropResize', 'NFClsHead', 'NFRandAugment', 'RandomResizedCrop', 'ResizeCrop32', 'mixing_collate']
