"""Public weights to ours and back; needs torch, NumPy and mmengine alone."""

from .deepmind import from_deepmind
from .layout import ConversionError, Layout, describe
from .readers import read_weights
from .stand_ins import ReadError
from .timm import from_timm, to_timm

__all__ = ['ConversionError', 'Layout', 'ReadError', 'describe', 'from_deepmind', 'from_timm', 'read_weights',
           'to_timm']
