"""Image classification by mmpretrain: the head, the BatchNorm baseline, MixUp, CutMix and RandAugment."""

from nfnet_mm.dependencies import require

require('mmpretrain')

from .bn_resnet import BNResNet  # noqa: E402
from .head import NFClsHead  # noqa: E402
from .mixing import mixing_collate  # noqa: E402
from .randaugment import NFRandAugment  # noqa: E402

__all__ = ['BNResNet', 'NFClsHead', 'NFRandAugment', 'mixing_collate']
