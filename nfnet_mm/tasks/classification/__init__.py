"""The mmpretrain room."""
from nfnet_mm.utils.dependencies import require

require('mmpretrain')

from .head import NFClsHead  # noqa: E402

__all__ = ['NFClsHead']
