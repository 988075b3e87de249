"""A trained network on its way out of the training script."""

from .fold import fold

__all__ = ['fold']
