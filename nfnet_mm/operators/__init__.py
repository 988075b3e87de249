"""Operators in place of mmcv's compiled ones, where those are missing: ``import nfnet_mm.operators`` and ``install()``.

mmcv's Python wrappers ask one compiled module, ``mmcv._ext``, for their operators; without it ``mmcv.ops``, and with it
mmdet, cannot be imported. :func:`install` lets that module be found. A compiled one always goes first.
"""

from .finder import install

__all__ = ['install']
