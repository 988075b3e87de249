"""Public weights to ours and back; needs torch, NumPy and mmengine alone."""

from .deepmind import from_deepmind
from .layout import ConversionError, Layout, describe

__all__ = ['ConversionError', 'Layout', 'describe', 'from_deepmind']
